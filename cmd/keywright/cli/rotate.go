package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"keywright.dev/kms/api"
)

func (p *Program) rotateCommand() *cobra.Command {
	c := &cobra.Command{Use: "rotate", Short: "Carry out what is due of keys, and show what is"}
	c.AddCommand(p.rotatePlan(), p.rotateRun(), p.rotateStatus(), p.rotatePause(), p.rotateResume(), p.rotateHistory())
	return c
}

func (p *Program) rotatePlan() *cobra.Command {
	var (
		at    string
		limit int
		out   compromise
	)
	c := &cobra.Command{
		Use: "plan", Short: "Show what is due by the policy of rotations, and change nothing",
		Long: `Show what is due of keyrings' versions and of volumes' keys by the policy that
rotation.policy names in the service's configuration: each step with its reason, since
when it is due, from when on it may begin, and what it takes; then what is due beside
them, and what that waits for.

With --at it is the plan for another moment, such as 2027-01-31, as if nothing were
done until then.

With --compromised it is what is to be done about a key that is out, each step with what
it comes after, whatever the policy says of ages: a fresh keyring version, rekeys, new
volume keys where they could be reached. It names the images of disks that nothing opens
afterwards, and what only people can do.`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			moment, err := momentOf("--at", at)
			if err != nil {
				return err
			}
			if limit < 1 || limit > api.MaxPlanSteps {
				return usagef("--limit is a number from 1 to %d", api.MaxPlanSteps)
			}
			if err := out.refuse(); err != nil {
				return err
			}
			if out.given() {
				if at != "" {
					return usagef("--at is for what is due; say --since with --compromised")
				}
				return p.planChain(c.Context(), &out, limit)
			}
			plan, err := call(c.Context(), p, func(ctx context.Context, o *api.OperatorClient) (api.RotationPlan, error) {
				return o.RotationPlan(ctx, moment, limit)
			})
			if err != nil {
				return err
			}
			return p.print(plan, func(w io.Writer) { writePlan(w, &plan) })
		},
	}
	c.Flags().StringVar(&at, "at", "", "the moment that the plan is made for: a date, or a time such as 2027-01-31T22:00:00Z (default now)")
	c.Flags().IntVar(&limit, "limit", 1000, "the most steps to list")
	out.flags(c)
	return c
}

func momentOf(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usagef("%s is a date such as 2027-01-31, or a time such as 2027-01-31T22:00:00Z", flag)
}

func writePlan(w io.Writer, plan *api.RotationPlan) {
	if len(plan.Steps) == 0 {
		fmt.Fprintf(w, "nothing may begin at %s\n", clock(plan.At))
	} else {
		writeSteps(w, plan)
	}
	writeTotals(w, plan.Totals)
	writeLate(w, "overdue", plan.Overdue)
	writeLate(w, "overdue, and under way", plan.UnderWay)
	writeLate(w, "excused", plan.Excused)
	if n := plan.Orders.Open; n > 0 {
		fmt.Fprintf(w, "orders: %d open, %d of them wait for machines that are away, %d failed before\n", n, plan.Orders.Waiting, plan.Orders.Failing)
	}
}

func writeSteps(w io.Writer, plan *api.RotationPlan) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "STEP\tOF\tDUE\tNOT BEFORE\tTAKES\tREASON")
	for i := range plan.Steps {
		s := &plan.Steps[i]
		notBefore := "now"
		if s.NotBefore.After(plan.At) {
			notBefore = clock(s.NotBefore)
		}
		fmt.Fprintln(table, strings.Join([]string{s.Kind, s.Object, clock(s.Due), notBefore, dash(costText(&s.Cost)), aboutStep(s)}, "\t"))
	}
	_ = table.Flush() // w keeps the error
	if plan.Unlisted > 0 {
		fmt.Fprintf(w, "and %d more\n", plan.Unlisted)
	}
}

// writeTotals has a line for what is done in the same way.
func writeTotals(w io.Writer, totals []api.RotationTotal) {
	if len(totals) == 0 {
		return
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\nRULE\tSTEPS\tCOUNT\tWAIT FOR\tTAKE")
	for i := range totals {
		t := &totals[i]
		fmt.Fprintln(table, strings.Join([]string{t.Rule, t.Kind, fmt.Sprint(t.Count), waitsFor(t.WaitsFor), dash(costText(&t.Cost))}, "\t"))
	}
	_ = table.Flush() // w keeps the error
}

// waitsFor says what a due step waits for.
func waitsFor(hold string) string {
	switch hold {
	case "":
		return "- (listed above)"
	case "concurrency":
		return "orders that are open"
	case "rate":
		return "the rule's rate"
	case "machine":
		return "a machine that is away"
	case "order":
		return "an order of the volume"
	case "restore":
		return "a restore that is announced"
	case "window":
		return "a window, and none opens"
	case "census":
		return "what depends on it"
	case "plan":
		return "the next plan"
	}
	return hold
}

func costText(c *api.RotationCost) string {
	var parts []string
	add := func(n int64, what string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, what))
		}
	}
	add(c.RootCalls, "root calls")
	add(c.Rows, "rows")
	add(c.Machines, "machines")
	if c.Bytes > 0 {
		parts = append(parts, bytesText(uint64(c.Bytes)))
	}
	add(c.Unsized, "volumes of unknown size")
	if c.Seconds > 0 {
		parts = append(parts, (time.Duration(c.Seconds) * time.Second).String())
	}
	return strings.Join(parts, ", ")
}

// maxLateShown bounds what a screen shows of what is late.
const maxLateShown = 5

func writeLate(w io.Writer, title string, late api.RotationLateness) {
	if late.Count == 0 {
		return
	}
	fmt.Fprintf(w, "%s: %d\n", title, late.Count)
	for _, l := range late.First[:min(len(late.First), maxLateShown)] {
		fmt.Fprintf(w, "  %s %s since %s", l.Kind, l.Object, clock(l.Deadline))
		if l.Machine != "" {
			fmt.Fprintf(w, ", machine/%s last seen %s", short(l.Machine), dash(when(l.Seen)))
		}
		if e := l.Excuse; e != nil {
			fmt.Fprintf(w, "; %s answers for it until %s: %s", word(e.Owner), clock(e.Until), word(e.Reason))
		}
		fmt.Fprintln(w)
	}
	if n := late.Count - maxLateShown; n > 0 {
		fmt.Fprintf(w, "  and %d more\n", n)
	}
}
