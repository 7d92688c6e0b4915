// Package cli is the keywright command: the service, and the operators' verbs
// that speak to it over its socket.
//
// Invariants:
//   - Results go to standard output, everything else to standard error.
//   - Exit codes are part of the interface: see [ExitUsage] and the others.
//   - --format json prints the types of package api, as the API returns them.
//
// It refuses secrets in arguments and environment variables.
package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// Program is a command and what it is run in.
type Program struct {
	Version  string
	In       io.Reader
	Out, Err io.Writer
	// Env reads an environment variable.
	Env func(name string) string
	// Clock is the time of day.
	Clock func() time.Time
	// Resolver and Addresses tell where the host of a root is: what DNS says of it,
	// and the addresses of this host.
	Resolver  Resolver
	Addresses func() ([]netip.Addr, error)

	format  string
	address string
}

// The exit codes.
const (
	ExitDone        = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitRefused     = 3
	ExitPartly      = 4
	ExitUnavailable = 5
	ExitWaiting     = 6
)

const exitCodes = `Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused, 4 partly done (names
what was not), 5 service unavailable, 6 waiting for approval (prints its id).`

// Run runs the command and returns its exit code.
func (p *Program) Run(ctx context.Context, args []string) int {
	root := p.Command()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitDone
	}
	fmt.Fprintf(p.Err, "keywright: %s\n", explain(err))
	return exitCode(err)
}

// Command returns the command tree.
func (p *Program) Command() *cobra.Command {
	root := &cobra.Command{
		Use:   "keywright",
		Short: "Keys for virtual machines that prove what they booted",
		Long: `Keywright makes the keys that virtual machines boot with. The service issues
them to machines that prove, through their TPM, who they are and what they
booted. Operators use the other verbs on the service's host.

References read machine/web-17, measurement/4f1c…, volume/93ab…; where the verb
tells the kind, the name alone will do, and so will the beginning of an id.

` + exitCodes,
		SilenceErrors: true, SilenceUsage: true, Version: p.Version,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: false},
	}
	root.SetOut(p.Out)
	root.SetErr(p.Err)
	root.SetVersionTemplate("keywright {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	flags := root.PersistentFlags()
	flags.StringVar(&p.format, "format", formatText, "output: text or json")
	flags.StringVar(&p.address, "addr", "", "the service's operator socket (default $KEYWRIGHT_ADDR, then ./keywright-data/operator.sock, then /run/keywright/operator.sock)")
	root.PersistentPreRunE = func(*cobra.Command, []string) error { return p.checkFormat() }
	root.AddCommand(
		p.serverCommand(), p.machineCommand(), p.measurementCommand(), p.volumeCommand(), p.keyringCommand(), p.keyCommand(), p.rootCommand(),
		p.revokeCommand(), p.rotateCommand(),
		p.auditCommand(), p.explainCommand(), p.statusCommand(), p.configCommand(), p.versionCommand(),
	)
	root.InitDefaultCompletionCmd()
	refuseStray(root)
	return root
}

// suggestionDistance is how many letters off a verb may be to be suggested.
const suggestionDistance = 2

// refuseStray makes every group of verbs refuse a verb it does not have, which
// cobra would answer with the help and success.
func refuseStray(c *cobra.Command) {
	for _, sub := range c.Commands() {
		refuseStray(sub)
	}
	if !c.HasSubCommands() {
		c.Args = usageArgs(c.Args)
		return
	}
	if c.RunE != nil {
		return
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return c.Help()
		}
		c.SuggestionsMinimumDistance = suggestionDistance
		text := fmt.Sprintf("%s has no verb %q", c.CommandPath(), args[0])
		if near := c.SuggestionsFor(args[0]); len(near) > 0 {
			text += fmt.Sprintf(": did you mean %s?", near[0])
		}
		return usagef("%s", text)
	}
	c.Args = cobra.ArbitraryArgs
}

// usageArgs makes what a verb says of its arguments an error of usage.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if check == nil {
			return nil
		}
		if err := check(c, args); err != nil {
			return &usageError{err}
		}
		return nil
	}
}

// usageError is a command line that cannot be meant.
type usageError struct{ error }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// exactly wants that many arguments, named for the message.
func exactly(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != len(names) {
			return usagef("%s wants %s", c.CommandPath(), cmp.Or(strings.Join(names, " and "), "no arguments"))
		}
		return nil
	}
}

func isUsage(err error) bool {
	var usage *usageError
	return errors.As(err, &usage)
}

func (p *Program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: exactly(),
		RunE: func(*cobra.Command, []string) error {
			return p.print(map[string]string{"version": p.Version}, func(w io.Writer) {
				fmt.Fprintf(w, "keywright %s\n", p.Version)
			})
		},
	}
}
