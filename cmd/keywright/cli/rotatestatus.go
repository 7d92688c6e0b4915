package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"keywright.dev/kms/api"
)

// maxOrdersShown is what fits a screen.
const maxOrdersShown = 15

// underWay is what rotate status prints.
type underWay struct {
	Open      int `json:"open"`
	Committed int `json:"committed"`
	// Reencrypting counts reencryptions whose rekey is over, Waiting those of them that
	// wait until somebody agrees to the loss of keyslots.
	Reencrypting int `json:"reencrypting"`
	Waiting      int `json:"waiting"`
	// Failing counts those that a machine reported a fault of, AtBoot those that only
	// a boot carries out.
	Failing int `json:"failing"`
	AtBoot  int `json:"at_boot"`
	// Orders have the failing ones first, then the oldest.
	Orders []api.Order `json:"orders"`
	// Paused is why nothing is carried out; absent where it is.
	Paused *api.RotationPause `json:"paused,omitempty"`
}

func (p *Program) rotateStatus() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show the rekeys and reencryptions that are under way",
		Long: `Show the rekeys and reencryptions that are under way: since when, how often their secrets were handed
out, and what the machine said last of why it failed. Those that fail come first, then
the oldest. An order is open until the machine reports the new keyslot, committed until
it reports that the one before is gone, and over then. A reencryption goes on: it is
rekeyed, ready and reencrypting, with how much of the volume is done, how fast, and how
long it takes still.`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			now, err := call(c.Context(), p, func(ctx context.Context, o *api.OperatorClient) (api.Rotation, error) {
				return o.Rotation(ctx, 1)
			})
			if err != nil {
				return err
			}
			u := underWay{Orders: []api.Order{}, Paused: now.Paused}
			for order, err := range everything(c.Context(), p, api.ListQuery{Limit: api.MaxPage}, (*api.OperatorClient).Orders) {
				if err != nil {
					return err
				}
				u.add(order)
			}
			slices.SortStableFunc(u.Orders, func(a, b api.Order) int {
				return cmp.Or(cmp.Compare(b.Faults, a.Faults), a.Created.Compare(b.Created))
			})
			return p.print(u, func(w io.Writer) {
				if now.Paused != nil {
					writeHeld(w, &now)
				}
				u.write(w, p.Clock())
			})
		},
	}
}

func (u *underWay) add(o api.Order) {
	u.Orders = append(u.Orders, o)
	switch o.Status {
	case "committed":
		u.Committed++
	case "rekeyed", "ready", "reencrypting":
		u.Reencrypting++
		if o.Waits {
			u.Waiting++
		}
	default:
		u.Open++
	}
	if o.Fault != "" {
		u.Failing++
	}
	if o.AtBoot {
		u.AtBoot++
	}
}

func (u *underWay) write(w io.Writer, now time.Time) {
	if len(u.Orders) == 0 {
		fmt.Fprintln(w, "no rekey and no reencryption is under way")
		return
	}
	fmt.Fprintf(w, "rekeys: %d open, %d committed; %d wait for a boot, %d fail\n", u.Open, u.Committed, u.AtBoot, u.Failing)
	if u.Reencrypting > 0 {
		fmt.Fprintf(w, "reencryptions: %d; %d wait until somebody agrees to the loss of keyslots\n", u.Reencrypting, u.Waiting)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "VOLUME\tMACHINE\tKIND\tSTATUS\tAGE\tDELIVERED\tFAULTS\tFAULT")
	for i := range u.Orders[:min(len(u.Orders), maxOrdersShown)] {
		o := &u.Orders[i]
		status := o.Status
		if o.AtBoot {
			status += " at boot"
		}
		fmt.Fprintln(table, strings.Join([]string{
			short(o.Volume), short(o.Machine), o.Kind, status, ageOf(now.Sub(o.Created)), fmt.Sprintf("%d times", o.Deliveries),
			fmt.Sprint(o.Faults), dash(word(o.Fault)),
		}, "\t"))
	}
	_ = table.Flush() // w keeps the error
	u.writeProgress(w)
	if n := len(u.Orders) - maxOrdersShown; n > 0 {
		fmt.Fprintf(w, "and %d more\n", n)
	}
}

// writeProgress has a line for each reencryption that is shown and has begun.
func (u *underWay) writeProgress(w io.Writer) {
	for i := range u.Orders[:min(len(u.Orders), maxOrdersShown)] {
		o := &u.Orders[i]
		if o.Progress != nil {
			fmt.Fprintf(w, "volume/%s: %s\n", short(o.Volume), progressText(o.Progress))
		}
	}
}

// ageOf is a time in the unit that suits it.
func ageOf(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	default:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
}
