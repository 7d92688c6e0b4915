package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keywright.dev/kms/api"
)

func (p *Program) machineReadmit() *cobra.Command {
	var (
		body   api.ReadmitMachine
		dryRun bool
	)
	c := &cobra.Command{
		Use: "readmit MACHINE", Short: "Let a machine in again that was restored, revoked, or has a new disk",
		Long: `Let a machine in again that proves itself with the TPM it enrolled with.

The machine's next release sets new counters, whatever they are: a machine that
was restored from a snapshot, or whose vTPM was, gets its keys again. A
revocation is lifted. If no release comes within 7 days, the counters are held
against the ones before again.

Do this only where you know that no copy of the vTPM is left running: the first
that asks is taken for the machine.

With --re-enroll the machine may enroll again within 24 hours, with a new disk or
after keywright-unlock leave, and nothing else changes until it does. Then it
waits for approval under its name; its volumes until now are kept as former.`,
		Args: exactly("MACHINE"),
		RunE: func(c *cobra.Command, args []string) error {
			return p.grant(c.Context(), args[0], dryRun, func(ctx context.Context, o *api.OperatorClient, id string) (api.GrantedMachine, error) {
				return o.ReadmitMachine(ctx, id, body)
			})
		},
	}
	c.Flags().StringVar(&body.Reason, "reason", "", "why; it goes into the audit log")
	c.Flags().BoolVar(&body.Reenroll, "re-enroll", false, "let it enroll again with the same TPM, and nothing else")
	addDryRun(c, &dryRun)
	return c
}

func (p *Program) machineExpectRestore() *cobra.Command {
	var (
		body   api.ExpectRestore
		until  string
		dryRun bool
	)
	c := &cobra.Command{
		Use: "expect-restore MACHINE --until TIME", Short: "Announce that a machine will be restored from a snapshot or a backup",
		Long: `Announce that a machine will be restored to an earlier state, its vTPM included.
Until then one release may have counters that went back; it sets the new ones, and
uses the announcement up. Boots whose counters go on are served as always and use
up nothing, unless a disk is from before a rekey: then that release has the older
secret of it, and the announcement is used up.

TIME is a duration, such as 90m, 12h or 2d, or a time, such as
2026-11-24T18:00:00Z; at most 7 days ahead. Announcing again replaces the time.`,
		Args: exactly("MACHINE"),
		RunE: func(c *cobra.Command, args []string) error {
			var err error
			if body.Until, err = parseUntil(until, p.Clock()); err != nil {
				return err
			}
			return p.grant(c.Context(), args[0], dryRun, func(ctx context.Context, o *api.OperatorClient, id string) (api.GrantedMachine, error) {
				return o.ExpectRestore(ctx, id, body)
			})
		},
	}
	c.Flags().StringVar(&until, "until", "", "how long, or until when, the restore is expected; required")
	c.Flags().StringVar(&body.Reason, "reason", "", "why; it goes into the audit log")
	addDryRun(c, &dryRun)
	return c
}

// parseUntil reads a duration from now, in which d are days, or a time.
func parseUntil(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, usagef("give --until, such as 12h, 2d or 2026-11-24T18:00:00Z")
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return now.AddDate(0, 0, int(n)), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(d), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, usagef("--until %s is neither a duration, such as 12h or 2d, nor a time, such as 2026-11-24T18:00:00Z", text)
	}
	return t, nil
}

// grant lets a machine do something for a time, and says what.
func (p *Program) grant(ctx context.Context, argument string, dryRun bool,
	act func(context.Context, *api.OperatorClient, string) (api.GrantedMachine, error),
) error {
	before, err := p.named(ctx, argument)
	if err != nil {
		return err
	}
	m, err := call(ctx, p, func(ctx context.Context, o *api.OperatorClient) (api.GrantedMachine, error) {
		return act(ctx, acting(o, dryRun), before.ID)
	})
	if m, err = on(refOf(before.Machine), m, err); err != nil {
		return err
	}
	return p.print(m, func(w io.Writer) {
		if dryRun {
			fmt.Fprintf(w, "would change %s:\n", refOf(before.Machine))
		}
		writeGrants(w, m, before)
	})
}

func writeGrants(w io.Writer, m api.GrantedMachine, before api.MachineDetails) {
	name := refOf(m.Machine)
	if m.Status != before.Status {
		fmt.Fprintf(w, "%s is %s, it was %s\n", name, m.Status, before.Status)
	}
	for _, grant := range []struct {
		until *time.Time
		text  string
	}{
		{m.ReadmitUntil, "its next release sets new counters, if it comes before"},
		{m.RestoreUntil, "one release may have counters that went back, if it comes before"},
		{m.ReenrollUntil, "it may enroll again with the same TPM before"},
	} {
		if grant.until != nil {
			fmt.Fprintf(w, "%s: %s %s\n", name, grant.text, clock(*grant.until))
		}
	}
}
