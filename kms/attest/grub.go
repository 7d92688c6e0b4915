package attest

import (
	"crypto/sha256"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"keywright.dev/kms/claims"
)

// PCRs of GRUB (GRUB manual, "Measuring boot components"): every command that
// it carries out, and every file that it reads.
const (
	commandPCR = 8
	filePCR    = 9
)

// finding is why the roles of GRUB's measurements cannot be told. It holds no
// text that the evidence chose.
type finding string

// grubBoot is what GRUB's measurements say about a boot, by role.
type grubBoot struct {
	line    string  // as GRUB gave it to the kernel, its path first
	files   []event // read before the kernel
	kernel  event
	initrds []event
}

// readGRUB tells what GRUB loaded: from the order of its commands and files,
// and from the text of commands, which their digests cover. Labels and file
// names, which none covers, say nothing.
//
// Why that is sound. Every command that GRUB carries out is measured, whoever
// typed it, and what runs later can only append. All commands before linux are
// of [harmless], so none of them loaded a kernel or an initrd; behind it only
// echo and one initrd are allowed. With Secure Boot enabled GRUB loads no module
// from a disk, which could do what no command does. The claims name every file
// that was read, in order, but for GRUB's environment block: so files that
// something appends later cannot stand for those that were read, as then there
// are more of them. That the block was read where it seems to be,
// [environmentReads] tells.
func (l *eventLog) readGRUB(secureBoot bool) (grubBoot, finding) {
	if !secureBoot {
		return grubBoot{}, "Secure Boot is not enabled: a boot loader's modules can do what no command tells"
	}
	commands, found := coveredTexts(l.events[commandPCR])
	if found != "" {
		return grubBoot{}, found
	}
	at, found := findLinux(commands)
	if found != "" {
		return grubBoot{}, found
	}
	arguments := strings.TrimPrefix(commands[at], linuxCommand)
	if at+1 == len(commands) || !loadedWith(commands[at+1], arguments) {
		return grubBoot{}, "what follows the command linux is not its command line"
	}
	initrds, found := countInitrds(commands[at+2:])
	if found != "" {
		return grubBoot{}, found
	}
	environments, found := environmentReads(commands[:at])
	if found != "" {
		return grubBoot{}, found
	}
	return filesOf(l.events[filePCR], commands[at+1], initrds, environments)
}

// filesOf gives the files their roles: the last are the kernel and its initrds.
func filesOf(files []event, line string, initrds, environments int) (grubBoot, finding) {
	kernel := len(files) - 1 - initrds
	if kernel < 0 {
		return grubBoot{}, "fewer files were read than the kernel and its initrds"
	}
	b := grubBoot{line: line, files: files[:kernel], kernel: files[kernel], initrds: files[kernel+1:]}
	seen := 0
	for i := range b.files {
		if isEnvironment(&b.files[i]) {
			seen++
		}
	}
	if seen != environments {
		return grubBoot{}, "the environment block was read more or less often than the commands tell"
	}
	return b, ""
}

// isEnvironment tells whether an event seems to be that of GRUB's environment
// block, which changes from boot to boot. Its name is a hint: the place of the
// block among the files is part of what is approved.
func isEnvironment(e *event) bool {
	return strings.HasSuffix(strings.TrimSuffix(string(e.data), "\x00"), "/grubenv")
}

// environmentReads returns how often the commands before linux read the
// environment block. The stock configuration, whose digest is approved, begins
// by testing for it and reads it only where it is there. So the test was carried
// out, and a second one or a load_env that does not follow is somebody's who
// wants a file that was not read to seem to be.
func environmentReads(commands []string) (int, finding) {
	var tests, loads []int
	for i, command := range commands {
		switch {
		case strings.HasPrefix(command, "[ -s "):
			tests = append(tests, i)
		case wordOf(command) == "load_env":
			loads = append(loads, i)
		}
	}
	switch {
	case len(loads) == 0:
		return 0, ""
	case len(loads) == 1 && len(tests) == 1 && loads[0] == tests[0]+2 &&
		commands[loads[0]-1] == "set have_grubenv=true" && commands[loads[0]] == "load_env":
		return 2, "" // by the test and by load_env
	default:
		return 0, "the environment block was not read as the stock configuration does"
	}
}

// coveredTexts returns the commands whose digests are those of their texts: the
// event's data without a label and without the NUL at its end.
func coveredTexts(events []event) ([]string, finding) {
	texts := make([]string, 0, len(events))
	for i := range events {
		text, ok := coveredText(&events[i])
		if !ok {
			return nil, finding(fmt.Sprintf("event %d of PCR 8 is not the digest of its text", i+1))
		}
		texts = append(texts, text)
	}
	return texts, ""
}

func coveredText(e *event) (string, bool) {
	data := strings.TrimSuffix(string(e.data), "\x00")
	for _, label := range []string{"grub_cmd: ", "kernel_cmdline: ", ""} {
		if text, ok := strings.CutPrefix(data, label); ok && sha256.Sum256([]byte(text)) == e.digest {
			return text, true
		}
	}
	return "", false
}

const (
	linuxCommand  = "linux "
	initrdCommand = "initrd "
)

// findLinux returns the place of the one command that loads a kernel, before
// which there are harmless ones alone.
func findLinux(commands []string) (int, finding) {
	at := slices.IndexFunc(commands, func(c string) bool { return strings.HasPrefix(c, linuxCommand) })
	if at < 0 {
		return 0, "no command linux was carried out"
	}
	for i, command := range commands[:at] {
		if !harmless(command) {
			return 0, finding(fmt.Sprintf("command %d is none that a boot by the menu needs", i+1))
		}
	}
	return at, ""
}

// countInitrds returns how many files the one command initrd names. Beside it
// there is nothing but messages.
func countInitrds(commands []string) (int, finding) {
	count := 0
	for _, command := range commands {
		files, isInitrd := strings.CutPrefix(command, initrdCommand)
		switch {
		case isInitrd && count == 0:
			names := strings.Split(files, " ")
			if !slices.ContainsFunc(names, notAFile) {
				count = len(names)
				continue
			}
			return 0, "the command initrd names what is no plain path"
		case isInitrd:
			return 0, "initrds were loaded twice"
		case wordOf(command) != "echo":
			return 0, "something was done after the kernel was loaded"
		}
	}
	if count == 0 {
		return 0, "no initrd was loaded"
	}
	return count, ""
}

// notAFile tells what is not one plain path: newc:NAME:PATH would have the
// initrd be a file in another one.
func notAFile(name string) bool {
	return !strings.HasPrefix(name, "/") && !strings.HasPrefix(name, "(") || strings.ContainsAny(name, "\"'\\")
}

// loadedWith tells whether a command line is what GRUB makes of the arguments of
// linux (grub_create_loader_cmdline): each quoted where it needs to be. It
// begins with a path, as no command does that is harmless.
func loadedWith(line, arguments string) bool {
	if notAFile(line[:strings.IndexByte(line+" ", ' ')]) {
		return false
	}
	plain, ok := unquote(line)
	return ok && plain == arguments
}

// unquote takes off the quotes and backslashes that GRUB put there.
func unquote(line string) (string, bool) {
	var out strings.Builder
	quoted := false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\' && i+1 < len(line):
			i++
			out.WriteByte(line[i])
		case c == '\\':
			return "", false
		case c == '"':
			quoted = !quoted
		default:
			out.WriteByte(c)
		}
	}
	return out.String(), !quoted
}

// assignment is GRUB's VARIABLE=VALUE.
var assignment = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*=`)

// harmless tells whether a command is one of those that a configuration written
// by grub-mkconfig has, and loads nothing but configuration, fonts and modules
// that are part of the signed image. Names of functions are among them: what a
// function carries out is measured as well.
func harmless(command string) bool {
	word := wordOf(command)
	return assignment.MatchString(word) || slices.Contains([]string{
		"[", "clear", "configfile", "echo", "export", "false", "gfxmode", "initrdfail", "insmod", "load_env",
		"load_video", "loadfont", "menuentry", "password_pbkdf2", "recordfail", "save_env", "savedefault", "search",
		"search.file", "search.fs_label", "search.fs_uuid", "set", "setparams", "sleep", "source", "submenu",
		"terminal_input", "terminal_output", "test", "true", "unset",
	}, word)
}

func wordOf(command string) string { return command[:strings.IndexByte(command+" ", ' ')] }

// claim names the boot: what a group has in common, what is the machine's, and
// what is neither.
func (b grubBoot) claim() (n named, found finding) {
	line, variables, err := claims.LoaderLine(b.line)
	if err != nil {
		return n, finding(err.Error())
	}
	n.measurement = []claims.Claim{line, {Name: claims.LoaderKernel, Value: digestOf(&b.kernel)}}
	n.platform = variables
	for i := range b.files {
		name, value := claims.LoaderFile, digestOf(&b.files[i])
		if isEnvironment(&b.files[i]) {
			n.state = append(n.state, claims.Claim{Name: claims.LoaderEnvironment, Value: value})
			name, value = claims.LoaderEnvironment, claims.Present
		}
		n.platform = append(n.platform, claims.Claim{Name: name, Value: value})
	}
	for i := range b.initrds {
		n.platform = append(n.platform, claims.Claim{Name: claims.LoaderInitrd, Value: digestOf(&b.initrds[i])})
	}
	return n, ""
}
