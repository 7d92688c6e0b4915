package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"keywright.dev/kms/api"
)

// identityCommand speaks to the service of a configuration or folder where one is given,
// as backup does.
func (p *Program) identityCommand(flags *serverFlags) *cobra.Command {
	c := &cobra.Command{
		Use: "identity", Short: "The key that machines know the service by",
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if err := p.checkFormat(); err != nil { // of the root, in whose place this runs
				return err
			}
			return p.choose(flags)
		},
	}
	c.AddCommand(p.identityCensus(), p.identityRotate(), p.identityRetire())
	return c
}

func (p *Program) identityCensus() *cobra.Command {
	return &cobra.Command{
		Use: "census", Short: "Count which machines know which service identity keys", Args: exactly(),
		Long: `Count, by their last boots, which active machines pin which service identity keys, and
name those that lack the current one.

It ends with 4 where a rotation is not finished: machines lack the current key, or pin
another one beside it.`,
		RunE: func(c *cobra.Command, _ []string) error {
			census, err := call(c.Context(), p, func(ctx context.Context, o *api.OperatorClient) (api.IdentityCensus, error) {
				return o.IdentityCensus(ctx)
			})
			if err != nil {
				return err
			}
			if err := p.print(census, func(w io.Writer) { writeIdentityCensus(w, census) }); err != nil {
				return err
			}
			if census.Lacking+census.Others > 0 || len(census.Keys) > 1 {
				return errPartly
			}
			return nil
		},
	}
}

func writeIdentityCensus(w io.Writer, c api.IdentityCensus) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "SERVICE KEY\tSTATE\tCREATED\tPINNED BY")
	for i, k := range c.Keys {
		state := "current"
		if i > 0 {
			state = "to be retired"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%d of %d\n", k.Fingerprint, state, clock(k.Created), k.Pinned, c.Machines)
	}
	_ = table.Flush() // what it writes to keeps the error
	if c.Lacking > 0 {
		fmt.Fprintf(w, "%d do not know the current key:\n", c.Lacking)
	}
	for _, id := range c.First {
		fmt.Fprintf(w, "  machine/%s\n", id)
	}
	if n := c.Lacking - int64(len(c.First)); n > 0 {
		fmt.Fprintf(w, "  and %d more\n", n)
	}
	if c.Others > 0 {
		fmt.Fprintf(w, "%d know the current key and trust another one still\n", c.Others)
	}
}

func (p *Program) identityRotate() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use: "rotate", Short: "Make another service identity key, beside the one that machines know", Args: exactly(),
		Long: `Make another service identity key. Until the one before is retired the service answers
with that one too, to machines that know no other. Agents on machines learn of the new
one within a minute, under a signature of the one before, and write it into their
configuration and initramfs; a boot shows the service that it is there. See
server identity census. Write a backup behind it: a store from before does not have the
new key.`,
		RunE: func(c *cobra.Command, _ []string) error {
			census, err := call(c.Context(), p, func(ctx context.Context, o *api.OperatorClient) (api.IdentityCensus, error) {
				return acting(o, dryRun).RotateIdentity(ctx)
			})
			if err != nil {
				return err
			}
			return p.print(census, func(w io.Writer) {
				if dryRun {
					fmt.Fprintln(w, "would make another service identity key, beside:")
				}
				writeIdentityCensus(w, census)
			})
		},
	}
	addDryRun(c, &dryRun)
	return c
}

func (p *Program) identityRetire() *cobra.Command {
	var (
		body   api.RetireIdentity
		dryRun bool
	)
	c := &cobra.Command{
		Use: "retire KEY", Short: "Delete the service identity key before the current one", Args: exactly("KEY"),
		Long: `Delete the service identity key before the current one, named by its fingerprint or the
beginning of it. It is refused, and names some, while machines lack the current key: their
boots would get no keys any more. Those that are excused (rotation.excuses) or not active do
not count; for those that are gone there is --leave-behind. One that comes back asks for
its passphrase, and gets the current key by a person: docs/operations.md.

Agents then take the retired key out of the configuration and initramfs of their machines.
Until the boot that shows it, who has that key can pass for this service with them.`,
		RunE: func(c *cobra.Command, args []string) error {
			if body.Key = args[0]; body.Key == "" {
				return usagef("name the service identity key by the beginning of its fingerprint: `keywright server identity census` lists them")
			}
			if body.LeaveBehind < 0 || body.LeaveBehind > maxLeftBehind {
				return usagef("--leave-behind is a number from 0 to %d", maxLeftBehind)
			}
			census, err := call(c.Context(), p, func(ctx context.Context, o *api.OperatorClient) (api.IdentityCensus, error) {
				return acting(o, dryRun).RetireIdentity(ctx, body)
			})
			if err != nil {
				return err
			}
			return p.print(census, func(w io.Writer) {
				verb := "retired"
				if dryRun {
					verb = "would retire"
				}
				fmt.Fprintln(w, verb+" a service identity key")
				writeIdentityCensus(w, census)
			})
		},
	}
	c.Flags().IntVar(&body.LeaveBehind, "leave-behind", 0, "how many machines that lack the current key are left behind, at most "+strconv.Itoa(maxLeftBehind))
	addDryRun(c, &dryRun)
	return c
}

// maxLeftBehind bounds the machines that are left behind.
const maxLeftBehind = 10_000
