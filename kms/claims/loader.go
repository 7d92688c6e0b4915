package claims

import (
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Why a command line has no form in which machines share it. They repeat
// nothing of it.
var (
	errNumbered = errors.New("the command line contains the character <, which stands for what names one machine")
	errOpenRoot = errors.New("the kernel could mount the root in the command line without the initrd")
	errLongLine = errors.New("the command line is longer than a claim, or not of printable ASCII characters")
)

// variables are what in a command line names one machine: the root and resume
// devices, and every UUID.
var variables = regexp.MustCompile(`(^| )(root|resume)=([^ ]+)|[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}`)

// LoaderLine returns the claim [LoaderCommandLine] of a command line, in which
// numbers stand for what names one machine, and that machine's [LoaderVariable]
// claims. Line and variables together determine the text.
func LoaderLine(text string) (line Claim, values []Claim, err error) {
	if strings.Contains(text, "<") {
		return Claim{}, nil, errNumbered
	}
	var named []string
	number := func(value string) string {
		i := slices.Index(named, value)
		if i < 0 {
			i, named = len(named), append(named, value)
		}
		return "<" + strconv.Itoa(i+1) + ">"
	}
	line = Claim{Name: LoaderCommandLine, Value: variables.ReplaceAllStringFunc(text, func(match string) string {
		parts := variables.FindStringSubmatch(match)
		if parts[2] == "" {
			return number(match)
		}
		if parts[2] == "root" && !needsInitrd(parts[3]) {
			err = errOpenRoot
		}
		return parts[1] + parts[2] + "=" + number(parts[3])
	})}
	for i, value := range named {
		values = append(values, Claim{Name: LoaderVariable, Value: strconv.Itoa(i+1) + " " + value})
		if err == nil && !ValidValue(values[i].Value) {
			err = errLongLine
		}
	}
	if err == nil && !ValidValue(line.Value) {
		err = errLongLine
	}
	return line, values, err
}

// needsInitrd tells whether a root can be found by an initrd alone. An initrd
// that GRUB read and could not load would otherwise leave a kernel that mounts a
// root of anybody's (linux/block/early-lookup.c).
func needsInitrd(root string) bool {
	return slices.ContainsFunc([]string{"/dev/mapper/", "UUID=", "LABEL="}, func(prefix string) bool {
		return strings.HasPrefix(root, prefix)
	})
}
