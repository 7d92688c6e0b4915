package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keywright.dev/kms/api"
)

func (p *Program) volumeReencrypt() *cobra.Command {
	var (
		reason       string
		lose, dryRun bool
	)
	c := &cobra.Command{
		Use: "reencrypt VOLUME", Short: "Have a volume's machine put its data under a new volume key",
		Long: `Order a reencryption: the running machine rekeys the volume first, makes a keyslot for
a new recovery key where the volume has one, and then puts its data under a new volume
key while it stays in use. Whatever is cut on the way, the machine boots, and goes on. It
writes the whole volume: rotate status shows how far it has come.

Keyslots whose keys nobody here has, such as a person's, do not survive it. They are
named, and the order waits after the rekey until somebody agrees: with --lose-keyslots
here, or in a later call of it. What turns up beside them later is to be agreed to anew.

An image of the disk from before the reencryption boots no more.`,
		Args: exactly("VOLUME"),
		RunE: func(c *cobra.Command, args []string) error {
			if strings.TrimSpace(reason) == "" {
				return usagef("give --reason: it goes into the audit log")
			}
			return p.changeOrder(c.Context(), args[0], dryRun, "ordered a reencryption of", func(ctx context.Context, o *api.OperatorClient, id string) (api.Order, error) {
				return reencrypt(ctx, o, id, reason, lose, dryRun)
			})
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why; required, and goes into the audit log")
	c.Flags().BoolVar(&lose, "lose-keyslots", false, "agree that the keyslots are lost which the order names, also of one that waits for that")
	addDryRun(c, &dryRun)
	return c
}

// reencrypt orders a reencryption unless one is, and agrees to what it loses.
func reencrypt(ctx context.Context, o *api.OperatorClient, id, reason string, lose, dryRun bool) (api.Order, error) {
	if !lose {
		return o.ReencryptVolume(ctx, id, api.ReencryptVolume{Reason: reason})
	}
	v, err := o.Volume(ctx, id)
	if err != nil {
		return api.Order{}, err
	}
	if v.Order == nil || !v.Order.Waits {
		order, err := o.ReencryptVolume(ctx, id, api.ReencryptVolume{Reason: reason})
		if err != nil || dryRun || !order.Waits {
			return order, err
		}
	}
	return o.LoseKeyslots(ctx, id, api.LoseKeyslots{Reason: reason})
}

// kindReencrypt is the kind of an order, as the API names it.
const kindReencrypt = "reencrypt"

func kindOf(o *api.Order) string {
	if o.Kind == kindReencrypt {
		return "reencryption"
	}
	return "rekey"
}

// writeLost names the keyslots that a reencryption loses.
func writeLost(w io.Writer, o *api.Order) {
	if len(o.Lost) == 0 {
		return
	}
	fmt.Fprintf(w, "  keyslots that are lost: %s\n", keyslotsText(o.Lost))
	if o.Waits {
		fmt.Fprintf(w, "  it waits after the rekey until somebody agrees: keywright volume reencrypt %s --lose-keyslots --reason …\n", short(o.Volume))
	}
}

func keyslotsText(list []api.LUKSSlot) string {
	var slots []string
	for _, s := range list {
		slots = append(slots, strings.TrimSpace(fmt.Sprintf("%d (%s %s)", s.ID, word(s.KDF), word(s.Mark))))
	}
	return strings.Join(slots, ", ")
}

// aboutStep adds to a step's reason what somebody is to know before it is carried out.
func aboutStep(s *api.RotationStep) string {
	reason := s.Reason
	if s.AtBoot {
		reason += "; at boot"
	}
	if s.Away {
		reason += "; its machine is away"
	}
	if len(s.Lost) > 0 {
		reason += "; waits until somebody agrees to lose the keyslots " + keyslotsText(s.Lost)
	}
	return reason
}

// writeReencryption says how far a reencryption has come whose rekey is over; false of
// what is none.
func writeReencryption(w io.Writer, o *api.Order) bool {
	switch o.Status {
	case "rekeyed":
		fmt.Fprintln(w, "  rekeyed: the keyslots that stay are still to be made")
	case "ready":
		fmt.Fprintln(w, "  ready: the header is still to be put under reencryption")
	case "reencrypting":
		fmt.Fprintf(w, "  reencrypting: %s\n", progressText(o.Progress))
	default:
		return false
	}
	return true
}

func progressText(p *api.ReencryptionProgress) string {
	if p == nil {
		return "has begun"
	}
	percent := 100.0
	if p.Total > 0 {
		percent = 100 * float64(p.Done) / float64(p.Total)
	}
	return fmt.Sprintf("%s of %s (%.0f%%), %s/s, %s left",
		bytesText(p.Done), bytesText(p.Total), percent, bytesText(p.Rate), time.Duration(p.Left)*time.Second)
}

// bytesText is a number of bytes in the unit that suits it.
func bytesText(n uint64) string {
	const kilo = 1024
	if n < kilo {
		return fmt.Sprintf("%d B", n)
	}
	value, units := float64(n)/kilo, []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	for value >= kilo {
		value, units = value/kilo, units[1:]
	}
	return fmt.Sprintf("%.1f %s", value, units[0])
}
