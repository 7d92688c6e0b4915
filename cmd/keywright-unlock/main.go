// Command keywright-unlock opens a machine's LUKS volumes at boot with keys
// that the Keywright service releases to attested machines, and enrols the
// machine in the first place. It runs in the initramfs, so it is one static
// file. docs/guest.md is its manual.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"keywright.dev/unlock"
)

// version is stamped by the linker.
var version string

func main() { os.Exit(start(system())) }

// start runs the process's command line and returns the exit code.
func start(h host) int {
	// Whoever reads our output may go away, which must end nothing halfway.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	return run(ctx, h, os.Args[1:])
}

// command is one verb.
type command struct {
	name, arguments, summary string
	run                      func(ctx context.Context, h host, args []string) error
}

func commands() []command {
	return []command{
		{"boot", "[--config FILE] [--deadline 90s] [--prompt PROGRAM]", "ask for the keys of this boot and open every volume", boot},
		{"close", "[--config FILE] [--root DEVICE|DIRECTORY | --resume | --shell]", "give up this boot's keys and check the root, before control leaves the initramfs", closeBoot},
		{"enroll", "--server URL --service-key sha256:… [--name NAME] [--device DEVICE]… [--no-recovery-key]", "bind this machine and its volumes to a service", enroll},
		{"enroll", "--device DEVICE [--mapping NAME] [--no-recovery-key]", "add a volume to those of this machine, once it is active", enroll},
		{"format", "DEVICE [--mapping NAME] [--no-recovery-key]", "make a blank disk a volume of this machine", format},
		{"stage", "[--uki FILE] [--hook]", "announce the boots that can follow, so that they get their keys", stage},
		{"preflight", "[--uki FILE]", "tell whether the next boot will get its keys", preflight},
		{"agent", "[--config FILE]", "carry out what the service orders of this machine's volumes, until told to end", agent},
		{"repin", "[--config FILE] [--hook] [--unstaged]", "pin the service keys that the service has now, in every initramfs", repin},
		{"key", "wrap|unwrap|rewrap|data-key [--keyring NAME] [--context TEXT] [--input FILE] [--output FILE] [--key-output FILE] [--batch]", "wrap and unwrap secrets of this machine's applications", key},
		{"status", "[--config FILE]", "show this machine's enrolment, its volumes and its boots", status},
		{"initramfs", "[--config FILE]", "put this version into every initramfs of an enrolled machine", refresh},
		{"leave", "[--device DEVICE]…", "undo what enroll did to this machine and its volumes", leave},
		{"version", "", "print the version", printVersion},
	}
}

// errUsage means that the arguments are wrong.
var errUsage = errors.New("usage")

// run carries out one command line and returns the exit code.
func run(ctx context.Context, h host, args []string) int {
	if len(args) == 0 {
		printUsage(h.stderr)
		return unlock.ExitUsage
	}
	if args[0] == "help" || args[0] == "--help" || args[0] == "-h" {
		printUsage(h.stdout)
		return unlock.ExitDone
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return exit(h, c.run(ctx, h, args[1:]))
		}
	}
	fmt.Fprintf(h.stderr, "keywright-unlock: there is no command %q\n", args[0])
	printUsage(h.stderr)
	return unlock.ExitUsage
}

func exit(h host, err error) int {
	var shown *announced
	var code verdict
	switch {
	case errors.As(err, &code):
		return int(code)
	case errors.Is(err, flag.ErrHelp):
		return unlock.ExitDone
	case errors.Is(err, errUsage):
		fmt.Fprintf(h.stderr, "keywright-unlock: %v\n", err)
		return unlock.ExitUsage
	case err != nil && !errors.As(err, &shown):
		fmt.Fprintf(h.stderr, "keywright-unlock: %v\n", err)
	}
	return unlock.ExitCode(err)
}

// verdict is an exit code whose reason was printed.
type verdict int

func (v verdict) Error() string { return fmt.Sprintf("exit code %d", int(v)) }

// announced is an error that the consoles have shown already.
type announced struct{ error }

func (a *announced) Unwrap() error { return a.error }

func printUsage(w io.Writer) {
	fmt.Fprint(w, "keywright-unlock opens this machine's LUKS volumes with keys from a Keywright service.\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  keywright-unlock %s %s\n        %s\n", c.name, c.arguments, c.summary)
	}
	fmt.Fprint(w, `
  keywright-unlock COMMAND --help shows the flags of a command.

Exit codes: 0 done, 1 failed, 2 usage, 3 refused (by the service, or a LUKS
header that is not opened), 4 not known (preflight) or done in part (key), 5 no
service answers.
`)
}

func printVersion(_ context.Context, h host, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%w: version takes no arguments", errUsage)
	}
	fmt.Fprintln(h.stdout, "keywright-unlock "+versionText())
	return nil
}

func versionText() string {
	if version == "" {
		return "unknown"
	}
	return version
}

// flags returns the flag set of a command.
func flags(h host, name string) *flag.FlagSet {
	set := flag.NewFlagSet("keywright-unlock "+name, flag.ContinueOnError)
	set.SetOutput(h.stderr)
	return set
}

// parse parses flags, of which no arguments may be left.
func parse(set *flag.FlagSet, args []string) error {
	switch err := set.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return err
	case err != nil:
		return fmt.Errorf("%w: %w", errUsage, err)
	case set.NArg() > 0:
		return fmt.Errorf("%w: %q is not a flag", errUsage, set.Arg(0))
	default:
		return nil
	}
}
