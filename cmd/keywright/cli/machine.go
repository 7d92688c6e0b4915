package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"keywright.dev/kms/api"
	"keywright.dev/kms/claims"
)

func (p *Program) machineCommand() *cobra.Command {
	c := &cobra.Command{Use: "machine", Short: "Machines that enrolled"}
	c.AddCommand(p.machineList(), p.machineShow(), p.machineApprove(), p.machineRename())
	return c
}

func (p *Program) machineList() *cobra.Command {
	var query api.ListQuery
	c := &cobra.Command{
		Use: "list", Short: "List machines", Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if !slices.Contains([]string{"", "pending", "active", "revoked"}, query.Status) {
				return usagef("--status is pending, active or revoked")
			}
			if !slices.Contains([]string{"", "yes", "no", "unknown", nextBootFails}, query.NextBoot) {
				return usagef("--next-boot is yes, no, unknown or fail")
			}
			listed := 0
			machines := counted(everything(c.Context(), p, query, (*api.OperatorClient).Machines), &listed)
			err := printList(p, machines, "NAME STATUS GROUP TIER ID LAST-RELEASE NEXT-BOOT", func(m api.Machine) []string {
				return []string{nameOf(m), m.Status, m.Group, m.Tier, short(m.ID), dash(when(m.LastRelease)), nextBootOf(m.NextBoot)}
			})
			if err == nil && query.NextBoot == nextBootFails && listed > 0 {
				return refusedf("%d of these machines would not get their keys at their next boot, or it is not known", listed)
			}
			return err
		},
	}
	c.Flags().StringVar(&query.Status, "status", "", "only machines with this status: pending, active or revoked")
	c.Flags().StringVar(&query.Group, "group", "", "only machines of this group")
	c.Flags().StringVar(&query.NextBoot, "next-boot", "", "only machines whose next boot gets its keys: yes, no, unknown; fail is no or unknown, and exits 3 where there is one")
	return c
}

const nextBootFails = "fail"

// nextBootOf is one word, with the reason where that is not yes.
func nextBootOf(b *api.NextBoot) string {
	switch {
	case b == nil:
		return "-"
	case b.Code != "":
		return b.Verdict + ":" + string(b.Code)
	default:
		return b.Verdict
	}
}

func (p *Program) machineShow() *cobra.Command {
	return &cobra.Command{
		Use: "show MACHINE", Short: "Show a machine, its volumes and its measurements", Args: exactly("MACHINE"),
		RunE: func(c *cobra.Command, args []string) error {
			m, err := p.machine(c.Context(), args[0])
			if err != nil {
				return err
			}
			return p.print(m, func(w io.Writer) { writeMachine(w, m) })
		},
	}
}

// machine returns the machine that an argument names.
func (p *Program) machine(ctx context.Context, argument string) (api.MachineDetails, error) {
	ref, err := reference("machine", argument)
	if err != nil {
		return api.MachineDetails{}, err
	}
	m, err := call(ctx, p, func(ctx context.Context, o *api.OperatorClient) (api.MachineDetails, error) {
		return o.Machine(ctx, ref)
	})
	return on("machine/"+ref, m, err)
}

// named returns the machine that an argument of a verb that changes something
// names: by its id or an approved name, since anybody can propose one.
func (p *Program) named(ctx context.Context, argument string) (api.MachineDetails, error) {
	m, err := p.machine(ctx, argument)
	if err != nil {
		return m, err
	}
	ref := strings.TrimPrefix(argument, "machine/")
	if m.Name != ref && !strings.HasPrefix(m.ID, ref) {
		return m, &about{"machine/" + ref, refusedf("no approved machine has this name; machine/%s proposes it: give the id if you mean that one", m.ID)}
	}
	return m, nil
}

func writeMachine(w io.Writer, m api.MachineDetails) {
	fields(w,
		"name", m.Name, "proposed name", m.Proposed, "status", m.Status, "group", m.Group, "tier", m.Tier,
		"id and EK hash", m.ID, "EK vouched for by", m.EKTrust, "resets seen", fmt.Sprint(m.ResetCount),
		"enrolled", clock(m.Created), "enrolment finished", map[bool]string{true: "yes", false: "no"}[m.Committed],
		"approved", when(m.Approved), "approved by", m.ApprovedBy,
		"revoked", when(m.Revoked), "revoked by", m.RevokedBy, "reason", m.RevokedReason,
		"last release", when(m.LastRelease), "last refusal", when(m.LastRefusal),
		"attested last", m.Attested, "expected next", m.Expected, "platform expected", m.ExpectedPlatform,
	)
	if b := m.NextBoot; b != nil {
		fields(w, "next boot", b.Verdict, "because", b.Detail, "announced", when(b.Announced))
	}
	for _, v := range m.Volumes {
		fmt.Fprintf(w, "volume/%s  %s  LUKS %s\n", short(v.ID), v.Status, v.UUID)
	}
	for _, x := range m.Measurements {
		fmt.Fprintf(w, "measurement/%s  %s in group %s, %s\n", short(x.ID), x.Status, x.Group, x.Source)
	}
	writeFindings(w, m.Findings)
}

// writeFindings writes what a person should look at.
func writeFindings(w io.Writer, findings []api.Claim) {
	if len(findings) > 0 {
		fmt.Fprintln(w, "look at what nothing explains, or stands beside the image:")
	}
	for _, c := range findings {
		fmt.Fprintf(w, "  %s %s\n", c.Name, c.Value)
	}
}

func (p *Program) machineApprove() *cobra.Command {
	var (
		body   api.ApproveMachine
		dryRun bool
	)
	c := &cobra.Command{
		Use: "approve MACHINE", Short: "Approve a machine and the boot announced for it",
		Long: `Approve a pending machine: from then on it gets its keys at each boot that
shows the approved measurement on the approved platform.

Read the EK hash from the hypervisor, not from here, and give it with --ek-hash:
it shows that this is the machine you mean. It is required unless a pinned CA or
the inventory vouches for the TPM.

What is approved is what the machine announces when the command begins, and it is
printed. If it announces something else meanwhile, nothing is approved.

On an active machine it approves the measurement and the platform you name.`,
		Args: exactly("MACHINE"),
		RunE: func(c *cobra.Command, args []string) error {
			before, err := p.machine(c.Context(), args[0])
			if err != nil {
				return err
			}
			body.AnnouncedMeasurement, body.AnnouncedPlatform = before.Expected, before.ExpectedPlatform
			m, err := call(c.Context(), p, func(ctx context.Context, o *api.OperatorClient) (api.ApprovedMachine, error) {
				return acting(o, dryRun).ApproveMachine(ctx, before.ID, body)
			})
			if m, err = on(refOf(before.Machine), m, err); err != nil {
				return err
			}
			if dryRun {
				return p.print(before, func(w io.Writer) { writeApproval(w, before, body) })
			}
			return p.print(m, func(w io.Writer) { writeApproved(w, m, before) })
		},
	}
	c.Flags().StringVar(&body.EKHash, "ek-hash", "", "the EK hash that the hypervisor shows for this machine's TPM")
	c.Flags().StringVar(&body.Name, "name", "", "its name (default: the proposed one)")
	c.Flags().StringVar(&body.Group, "group", "", "its group (default: its own, or default)")
	c.Flags().StringVar(&body.Measurement, "measurement", "", "digest of the boot to approve (default: the one announced)")
	c.Flags().StringVar(&body.Platform, "platform", "", "digest of the platform to approve (default: the one of the enrolment)")
	c.Flags().BoolVar(&body.AllowUnmeasured, "allow-unmeasured", false, "approve a boot that nothing measured: any system on the machine gets the keys")
	addDryRun(c, &dryRun)
	return c
}

func addDryRun(c *cobra.Command, dryRun *bool) {
	c.Flags().BoolVar(dryRun, "dry-run", false, "show what would be changed and change nothing")
}

// refOf is how a machine is spoken of.
func refOf(m api.Machine) string {
	switch {
	case m.Name != "":
		return "machine/" + m.Name
	default:
		return "machine/" + short(m.ID)
	}
}

func writeApproved(w io.Writer, m api.ApprovedMachine, before api.MachineDetails) {
	fmt.Fprintf(w, "machine/%s is %s in group %s\n", m.Name, m.Status, m.Group)
	fields(w, "measurement", m.ApprovedMeasurement, "platform", m.ApprovedPlatform)
	if m.Tier == string(claims.Identity) {
		fmt.Fprintln(w, "WARNING: its boot is not measured: whatever system runs on it gets the keys, where a policy allows that")
	}
	if m.ApprovedMeasurement == before.Expected {
		writeFindings(w, before.Findings)
	}
}

func writeApproval(w io.Writer, m api.MachineDetails, a api.ApproveMachine) {
	fmt.Fprintf(w, "would approve %s:\n", refOf(m.Machine))
	fields(w,
		"name", cmp.Or(a.Name, m.Name, m.Proposed), "group", cmp.Or(a.Group, m.Group), "status", m.Status+" -> active",
		"EK hash", m.EKHash, "EK vouched for by", m.EKTrust,
		"tier", m.Tier, "measurement", cmp.Or(a.Measurement, m.Expected), "platform", cmp.Or(a.Platform, m.ExpectedPlatform),
	)
	if a.Measurement == "" {
		writeFindings(w, m.Findings)
	}
}

func (p *Program) machineRename() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use: "rename MACHINE NAME", Short: "Give a machine another name", Args: exactly("MACHINE", "NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			before, err := p.named(c.Context(), args[0])
			if err != nil {
				return err
			}
			m, err := call(c.Context(), p, func(ctx context.Context, o *api.OperatorClient) (api.Machine, error) {
				return acting(o, dryRun).RenameMachine(ctx, before.ID, args[1])
			})
			if m, err = on(refOf(before.Machine), m, err); err != nil {
				return err
			}
			if dryRun {
				return p.print(before, func(w io.Writer) {
					fmt.Fprintf(w, "would rename %s to machine/%s\n", refOf(before.Machine), m.Name)
				})
			}
			return p.print(m, func(w io.Writer) { fmt.Fprintf(w, "%s is machine/%s now\n", refOf(before.Machine), m.Name) })
		},
	}
	addDryRun(c, &dryRun)
	return c
}
