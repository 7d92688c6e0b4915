package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"keywright.dev/kms/api"
)

func (p *Program) rotatePause() *cobra.Command {
	var (
		reason string
		dryRun bool
	)
	c := &cobra.Command{
		Use: "pause", Short: "Hold rotations",
		Long: `Hold rotations until rotate resume ends that. Servers begin no step by themselves, those
that carry out a plan end after the step at hand, and rotate run is refused unless it is
told --even-paused. Machines go on with the orders that they have: volume withdraw-rekey
takes one back.`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if strings.TrimSpace(reason) == "" {
				return usagef("give --reason: it goes into the audit log")
			}
			return p.changeRotation(c.Context(), dryRun, func(ctx context.Context, o *api.OperatorClient) (api.Rotation, error) {
				return o.PauseRotation(ctx, reason)
			})
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why; required, and goes into the audit log")
	addDryRun(c, &dryRun)
	return c
}

func (p *Program) rotateResume() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use: "resume", Short: "Let rotations go on",
		Long: "End what rotate pause began.",
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			return p.changeRotation(c.Context(), dryRun, func(ctx context.Context, o *api.OperatorClient) (api.Rotation, error) {
				return o.ResumeRotation(ctx)
			})
		},
	}
	addDryRun(c, &dryRun)
	return c
}

func (p *Program) changeRotation(ctx context.Context, dryRun bool, change func(context.Context, *api.OperatorClient) (api.Rotation, error)) error {
	now, err := call(ctx, p, func(ctx context.Context, o *api.OperatorClient) (api.Rotation, error) {
		return change(ctx, acting(o, dryRun))
	})
	if err != nil {
		return err
	}
	return p.print(now, func(w io.Writer) {
		if dryRun {
			fmt.Fprint(w, "would be: ")
		}
		writeHeld(w, &now)
	})
}

func (p *Program) rotateHistory() *cobra.Command {
	var limit int
	c := &cobra.Command{
		Use: "history", Short: "Show the runs that rotations were carried out in",
		Long: `Show whether rotations are paused, when the service carries out by itself what is due,
and the runs that did something, newest first: when, by whom, why, what came of it, and
the first steps that were refused or failed. The service keeps 1,000 runs, and 20
failures of each. A run that has no end is under way, or nobody heard how it ended.`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if limit < 1 || limit > api.MaxRotationRuns {
				return usagef("--limit is a number from 1 to %d", api.MaxRotationRuns)
			}
			now, err := call(c.Context(), p, func(ctx context.Context, o *api.OperatorClient) (api.Rotation, error) {
				return o.Rotation(ctx, limit)
			})
			if err != nil {
				return err
			}
			return p.print(now, func(w io.Writer) {
				writeHeld(w, &now)
				writeRuns(w, now.Runs)
			})
		},
	}
	c.Flags().IntVar(&limit, "limit", 20, "the most runs to show")
	return c
}

// writeHeld says whether rotations are carried out, and when by the service itself.
func writeHeld(w io.Writer, r *api.Rotation) {
	switch {
	case r.Paused != nil:
		fmt.Fprintf(w, "rotations are paused since %s by %s: %s\n", clock(r.Paused.Since), r.Paused.By, word(r.Paused.Reason))
	case r.Schedule == "":
		fmt.Fprintln(w, "rotations are not paused; the service carries out nothing by itself")
	default:
		fmt.Fprintf(w, "rotations are not paused; the service carries out what is due at %s, next at %s\n", r.Schedule, dash(when(r.Next)))
	}
}

func writeRuns(w io.Writer, runs []api.RotationRun) {
	if len(runs) == 0 {
		return
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "STARTED\tENDED\tBY\tOUTCOME\tDONE\tREFUSED\tFAILED\tWHY")
	for i := range runs {
		r := &runs[i]
		fmt.Fprintln(table, strings.Join([]string{
			clock(r.Started), dash(when(r.Ended)), r.By, dash(r.Outcome), fmt.Sprint(r.Done), fmt.Sprint(r.Refused), fmt.Sprint(r.Failed), word(r.Why),
		}, "\t"))
		for _, f := range r.Failures[:min(len(r.Failures), maxFailedShown)] {
			fmt.Fprintf(table, "  %s %s: %s\n", f.Kind, f.Object, word(f.Error))
		}
	}
	_ = table.Flush() // w keeps the error
}
