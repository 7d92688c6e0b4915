package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"keywright.dev/kms/api"
	"keywright.dev/rotate"
)

// compromise is what the command line says of keys that are out.
type compromise struct {
	what   []string
	since  string
	copied bool
}

func (o *compromise) flags(c *cobra.Command) {
	c.Flags().StringArrayVar(&o.what, "compromised", nil, "what is out: keyring/NAME@N, volume/ID, machine/NAME or luks-header:volume/ID; may be repeated")
	c.Flags().StringVar(&o.since, "since", "", "when it was found out, a date or a time: what was made before is replaced")
	c.Flags().BoolVar(&o.copied, "copied", false, "disks or headers may have been copied, too: volume keys are replaced as well")
}

func (o *compromise) given() bool { return len(o.what) > 0 }

// refuse refuses what is said about nothing.
func (o *compromise) refuse() error {
	if !o.given() && (o.since != "" || o.copied) {
		return usagef("--since and --copied are about what is out: name it with --compromised")
	}
	return nil
}

// query checks what was said. fixed wants a time where one matters: with another at each
// run, what the one before has replaced would be replaced again.
func (o *compromise) query(fixed bool) (api.Compromise, error) {
	out := api.Compromise{What: o.what, Copied: o.copied}
	if len(o.what) > api.MaxCompromised {
		return out, usagef("--compromised is given at most %d times", api.MaxCompromised)
	}
	keyringsAlone := !o.copied
	for _, text := range o.what {
		what, err := rotate.ParseReference(text)
		if err != nil {
			return out, usagef("--compromised %.80q: %v", text, err)
		}
		keyringsAlone = keyringsAlone && what.Kind == rotate.KeyringOut
	}
	var err error
	if out.Since, err = momentOf("--since", o.since); err != nil {
		return out, err
	}
	if fixed && out.Since.IsZero() && !keyringsAlone {
		return out, usagef("give --since, when it was found out, and the same each time you run it: what was made before is replaced")
	}
	return out, nil
}

func (p *Program) chain(ctx context.Context, out *api.Compromise, limit int) (api.RotationChain, error) {
	return call(ctx, p, func(ctx context.Context, o *api.OperatorClient) (api.RotationChain, error) {
		return o.RotationChain(ctx, *out, limit)
	})
}

// planChain shows what is to be done about a key that is out.
func (p *Program) planChain(ctx context.Context, o *compromise, limit int) error {
	out, err := o.query(false)
	if err != nil {
		return err
	}
	chain, err := p.chain(ctx, &out, limit)
	if err != nil {
		return err
	}
	return p.print(chain, func(w io.Writer) { writeChain(w, &chain) })
}

func writeChain(w io.Writer, c *api.RotationChain) {
	if len(c.Totals) == 0 {
		fmt.Fprintln(w, "nothing is left to do")
	}
	if len(c.Steps) > 0 {
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "STEP\tOF\tAFTER\tTAKES\tREASON")
		for i := range c.Steps {
			s := &c.Steps[i]
			fmt.Fprintln(table, strings.Join([]string{s.Kind, s.Object, dash(afterText(s.After)), dash(costText(&s.Cost)), aboutStep(s)}, "\t"))
		}
		_ = table.Flush() // w keeps the error
		if c.Unlisted > 0 {
			fmt.Fprintf(w, "and %d more\n", c.Unlisted)
		}
	}
	writeTotals(w, c.Totals)
	writeBeyond(w, c)
}

func afterText(after []api.RotationAction) string {
	kinds := make([]string, 0, len(after))
	for _, a := range after {
		if !slices.Contains(kinds, a.Kind) {
			kinds = append(kinds, a.Kind)
		}
	}
	return strings.Join(kinds, ", ")
}

// maxImagesShown bounds what a screen shows of images that open no more.
const maxImagesShown = 5

// writeBeyond says what the chain takes away, and what it does not mend.
func writeBeyond(w io.Writer, c *api.RotationChain) {
	if c.UnopenableCount > 0 {
		fmt.Fprintf(w, "images of disks that no secret opens afterwards: of %d secrets\n", c.UnopenableCount)
		shown := c.Unopenable[:min(len(c.Unopenable), maxImagesShown)]
		for _, u := range shown {
			until := "now"
			if u.Until != nil {
				until = clock(*u.Until)
			}
			fmt.Fprintf(w, "  %s: made from %s until %s\n", u.Object, clock(u.From), until)
		}
		if n := c.UnopenableCount - int64(len(shown)); n > 0 && len(shown) > 0 {
			fmt.Fprintf(w, "  and %d more\n", n)
		}
	}
	for _, text := range c.Beyond {
		fmt.Fprintln(w, "for people to do:", text)
	}
}

// chained is what a run about a key that is out prints.
type chained struct {
	rotated
	// Left counts what is to be done still: by the next run, or by machines.
	Left            int64    `json:"left"`
	UnopenableCount int64    `json:"unopenable_count"`
	Beyond          []string `json:"beyond"`
}

// mend carries out what is to be done about a key that is out.
func (r *rotation) mend(ctx context.Context, o *compromise, reason string) error {
	out, err := o.query(true)
	if err != nil {
		return err
	}
	if strings.TrimSpace(reason) == "" {
		return usagef("give --reason: it goes into the audit log")
	}
	var last api.RotationChain
	r.reason, r.why = reason, cut(strings.Join(out.What, ", ")+": "+reason)
	r.look = func(ctx context.Context) ([]api.RotationStep, time.Time, error) {
		chain, err := r.program.chain(ctx, &out, api.MaxPlanSteps)
		if err == nil {
			last = chain
			r.result.wait(chain.Totals)
		}
		return chain.Steps, chain.At, err
	}
	err = r.carry(ctx)
	return r.report(&last, err)
}

// report prints what a run about a key that is out did, and what is left.
func (r *rotation) report(last *api.RotationChain, err error) error {
	c := chained{rotated: r.result, UnopenableCount: last.UnopenableCount, Beyond: append([]string{}, last.Beyond...)}
	for _, t := range last.Totals {
		c.Left += t.Count
	}
	printErr := r.program.print(c, func(w io.Writer) {
		c.write(w)
		for _, kind := range slices.Sorted(maps.Keys(r.run.Behind)) {
			fmt.Fprintf(w, "not yet: %s %d, which come after steps that are not done\n", kind, r.run.Behind[kind])
		}
		writeBeyond(w, last)
	})
	switch failed := r.failed(); {
	case err != nil:
		return err
	case printErr != nil:
		return printErr
	case failed != nil:
		return failed
	case c.Left > 0 && !r.dryRun:
		return &partly{fmt.Errorf("%d steps are left: run it again, in the same words, until there are none", c.Left)}
	}
	return nil
}
