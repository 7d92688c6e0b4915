package predict

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
)

const (
	// maxConfigLine bounds a line of grub.cfg, in bytes; menu entries have none
	// that is longer.
	maxConfigLine = 64 << 10
	// maxEntries bounds the entries of a menu.
	maxEntries = 256
)

// Entry is an entry of GRUB's menu that loads a Linux kernel.
type Entry struct {
	Title string
	// CommandLine is the text that the kernel will receive, its path first, as
	// GRUB quotes and measures it.
	CommandLine string
	Kernel      string // path as GRUB sees it
	Initrds     []string
}

// Maintenance tells whether the entry asks for a shell in the place of the system,
// as the recovery entries of distributions do.
func (e Entry) Maintenance() bool {
	return slices.ContainsFunc(strings.Fields(e.CommandLine), func(word string) bool {
		switch word {
		case "single", "s", "S", "1", "rescue", "emergency", "recovery":
			return true
		}
		for _, prefix := range []string{"init=", "rdinit=", "break", "systemd.unit=rescue", "systemd.unit=emergency"} {
			if strings.HasPrefix(word, prefix) {
				return true
			}
		}
		return false
	})
}

// Entries returns the entries of a configuration that grub-mkconfig wrote, in
// its order. The first is what GRUB starts where nothing else was chosen.
// Entries whose commands depend on variables, or that load no initrd, are left
// out: what they will load cannot be told.
func Entries(config io.Reader) ([]Entry, error) {
	var entries []Entry
	var e *Entry
	keep := func() {
		if e != nil && e.Kernel != "" && len(e.Initrds) > 0 {
			entries = append(entries, *e)
		}
		e = nil
	}
	lines := bufio.NewScanner(config)
	lines.Buffer(nil, maxConfigLine)
	for lines.Scan() {
		words, plain := split(lines.Text())
		switch {
		case len(words) == 0:
		case words[0] == "menuentry" || words[0] == "submenu":
			keep()
			if len(words) > 1 && words[0] == "menuentry" {
				e = &Entry{Title: words[1]}
			}
		case e != nil && (words[0] == "linux" || words[0] == "initrd"):
			if !plain || !e.take(words) {
				e = nil
			}
		}
		if len(entries) > maxEntries {
			return nil, fmt.Errorf("reading GRUB's configuration: it has more than %d entries", maxEntries)
		}
	}
	keep()
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading GRUB's configuration: %w", err)
	}
	return entries, nil
}

// take takes a command of the entry; false where it has it twice or it names
// nothing.
func (e *Entry) take(words []string) bool {
	args := words[1:]
	switch {
	case len(args) == 0:
		return false
	case words[0] == "linux" && e.Kernel == "":
		e.Kernel, e.CommandLine = args[0], quote(args)
		return true
	case words[0] == "initrd" && e.Initrds == nil:
		e.Initrds = args
		return true
	default:
		return false
	}
}

// split cuts a line into words as GRUB's shell does; plain is false where one of
// them depends on a variable. Words are those of a single command: what follows
// a semicolon is left out.
func split(line string) (words []string, plain bool) {
	plain = true
	var word strings.Builder
	open, quoted := false, byte(0)
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quoted == '\'' && c != '\'', quoted == '"' && c != '"' && c != '$' && c != '\\':
			word.WriteByte(c)
		case quoted == c && c != 0:
			quoted = 0
		case c == '\'' || c == '"':
			quoted, open = c, true
		case c == '\\' && i+1 < len(line):
			i++
			word.WriteByte(line[i])
			open = true
		case c == '$':
			plain, open = false, true
		case c == ' ' || c == '\t' || c == ';':
			if open {
				words = append(words, word.String())
			}
			word.Reset()
			open = false
			if c == ';' {
				return words, plain
			}
		case c == '#' && !open:
			return words, plain
		default:
			word.WriteByte(c)
			open = true
		}
	}
	if open {
		words = append(words, word.String())
	}
	return words, plain && quoted == 0
}

// quote joins arguments as GRUB gives them to a kernel
// (grub_create_loader_cmdline).
func quote(args []string) string {
	quoted := make([]string, 0, len(args))
	for _, arg := range args {
		arg = strings.NewReplacer(`\`, `\\`, `'`, `\'`, `"`, `\"`).Replace(arg)
		if strings.Contains(arg, " ") {
			arg = `"` + arg + `"`
		}
		quoted = append(quoted, arg)
	}
	return strings.Join(quoted, " ")
}
