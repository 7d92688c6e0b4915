package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"keywright.dev/kms/api"
)

func (p *Program) volumeRekey() *cobra.Command {
	var (
		body   api.RekeyVolume
		dryRun bool
	)
	c := &cobra.Command{
		Use: "rekey VOLUME", Short: "Have a volume's machine replace its secret and keyslot",
		Long: `Order a rekey: the machine gives the volume a keyslot for a new secret and opens it
once; then boots are released the new secret, and the machine removes the keyslot of
the one before. The volume key and the data stay what they are. Whatever is cut on
the way, the machine boots, and goes on.

A running machine carries it out when it asks for orders, else its next boot does.
With --at-boot only a boot does: say so where the running system may be somebody
else's, who would have the new secret too. An open order becomes one at boot
likewise.

The secret before is kept as restore-only: it opens images of the disk from before.`,
		Args: exactly("VOLUME"),
		RunE: func(c *cobra.Command, args []string) error {
			if strings.TrimSpace(body.Reason) == "" {
				return usagef("give --reason: it goes into the audit log")
			}
			return p.changeOrder(c.Context(), args[0], dryRun, "ordered a rekey of", func(ctx context.Context, o *api.OperatorClient, id string) (api.Order, error) {
				return o.RekeyVolume(ctx, id, body)
			})
		},
	}
	c.Flags().BoolVar(&body.AtBoot, "at-boot", false, "only a boot carries it out, never a running system")
	c.Flags().StringVar(&body.Reason, "reason", "", "why; required, and goes into the audit log")
	addDryRun(c, &dryRun)
	return c
}

func (p *Program) volumeWithdrawRekey() *cobra.Command {
	var (
		body   api.WithdrawRekey
		dryRun bool
	)
	c := &cobra.Command{
		Use: "withdraw-rekey VOLUME", Short: "Take back a rekey that was not committed, or a reencryption that has not begun",
		Long: `Take an order back. The secret that boots are released stays the current one; what
the machine made of the other is removed with the next order.

A rekey that is committed cannot be taken back: its new secret is the current one. A
reencryption can, once its rekey is over, until the machine was given what it begins with.`,
		Args: exactly("VOLUME"),
		RunE: func(c *cobra.Command, args []string) error {
			return p.changeOrder(c.Context(), args[0], dryRun, "took back the order of", func(ctx context.Context, o *api.OperatorClient, id string) (api.Order, error) {
				return o.WithdrawRekey(ctx, id, body)
			})
		},
	}
	c.Flags().StringVar(&body.Reason, "reason", "", "why; it goes into the audit log")
	addDryRun(c, &dryRun)
	return c
}

// changeOrder changes the order of the volume that an argument names.
func (p *Program) changeOrder(ctx context.Context, argument string, dryRun bool, done string, change func(context.Context, *api.OperatorClient, string) (api.Order, error)) error {
	v, err := p.volume(ctx, argument)
	if err != nil {
		return err
	}
	order, err := call(ctx, p, func(ctx context.Context, o *api.OperatorClient) (api.Order, error) {
		return change(ctx, acting(o, dryRun), v.ID)
	})
	if order, err = on("volume/"+short(v.ID), order, err); err != nil {
		return err
	}
	if dryRun {
		done = "would have " + done
	}
	return p.print(order, func(w io.Writer) {
		fmt.Fprintf(w, "%s volume/%s of machine/%s\n", done, short(v.ID), short(v.Machine))
		writeLost(w, &order)
	})
}

// writeOrder says how far an order of the volume has come.
func writeOrder(w io.Writer, o *api.Order) {
	if o == nil {
		return
	}
	fmt.Fprintf(w, "%s ordered at %s by %s: %s\n", kindOf(o), clock(o.Created), o.By, word(o.Reason))
	writeLost(w, o)
	if o.From > 0 {
		fmt.Fprintf(w, "  the disk was restored from before a rekey: it opens with version %d\n", o.From)
	}
	switch {
	case writeReencryption(w, o):
	case o.Status == "committed" && o.Withdrawn > 0:
		fmt.Fprintf(w, "  taken back: what the machine made of version %d is still to be removed\n", o.Withdrawn)
	case o.Status == "committed":
		fmt.Fprintf(w, "  committed: the keyslot of the version before is still to be removed\n")
	case o.Version > 0:
		fmt.Fprintf(w, "  version %d was handed out %d times, last at %s\n", o.Version, o.Deliveries, clock(*o.Delivered))
	case o.AtBoot:
		fmt.Fprintf(w, "  waits for the machine's next boot\n")
	default:
		fmt.Fprintf(w, "  waits for the machine\n")
	}
	if o.HeaderKept != nil {
		fmt.Fprintf(w, "  the header from before is kept since %s: keywright volume header-copy\n", clock(*o.HeaderKept))
	}
	if o.Fault != "" {
		fmt.Fprintf(w, "  failed %d times, last at %s: %s\n", o.Faults, clock(*o.Reported), word(o.Fault))
	}
}
