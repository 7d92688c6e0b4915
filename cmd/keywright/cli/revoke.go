package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"keywright.dev/kms/api"
)

func (p *Program) revokeCommand() *cobra.Command {
	var (
		reason string
		dryRun bool
	)
	c := &cobra.Command{
		Use: "revoke machine/NAME", Short: "Deny a machine every key from now on",
		Long: `Revoke takes effect before it returns: the next request of the machine is
refused. It reports what the machine may still open with keys that it received
before: only a new key on those volumes ends that.`,
		Args: exactly("machine/NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			// A kind must stand in front: the verb is for many.
			if !strings.Contains(args[0], "/") {
				return usagef("revoke wants the kind as well: machine/%s", args[0])
			}
			before, err := p.named(c.Context(), args[0])
			if err != nil {
				return err
			}
			r, err := call(c.Context(), p, func(ctx context.Context, o *api.OperatorClient) (api.Revoked, error) {
				return acting(o, dryRun).RevokeMachine(ctx, before.ID, reason)
			})
			if r, err = on(refOf(before.Machine), r, err); err != nil {
				return err
			}
			if dryRun {
				return p.print(before, func(w io.Writer) { writeRevocation(w, before) })
			}
			return p.print(r, func(w io.Writer) { writeRevoked(w, r) })
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why; it goes into the audit log")
	addDryRun(c, &dryRun)
	return c
}

func writeRevocation(w io.Writer, m api.MachineDetails) {
	fmt.Fprintf(w, "would revoke %s, which is %s and has %d volumes\n", refOf(m.Machine), m.Status, len(m.Volumes))
}

func writeRevoked(w io.Writer, r api.Revoked) {
	fmt.Fprintf(w, "%s is revoked: it gets no keys from now on\n", refOf(r.Machine))
	fmt.Fprintln(w, "with keys that it received before, it may still open:")
	for _, v := range r.StillOpens {
		fmt.Fprintf(w, "  volume/%s  LUKS %s\n", short(v.ID), v.UUID)
	}
}
