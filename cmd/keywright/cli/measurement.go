package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"keywright.dev/kms/api"
	"keywright.dev/kms/claims"
	"keywright.dev/unlock/predict"
)

func (p *Program) measurementCommand() *cobra.Command {
	c := &cobra.Command{Use: "measurement", Short: "What machines may boot"}
	c.AddCommand(p.measurementList(), p.measurementShow(), p.measurementApprove(), p.measurementDismiss(), p.measurementRetire(), p.measurementCompute())
	return c
}

func (p *Program) measurementList() *cobra.Command {
	var query api.ListQuery
	c := &cobra.Command{
		Use: "list", Short: "List measurements", Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			list := everything(c.Context(), p, query, (*api.OperatorClient).Measurements)
			return printList(p, list, "ID GROUP STATUS SOURCE SEEN-ON CREATED APPROVED", func(m api.Measurement) []string {
				return []string{short(m.ID), m.Group, m.Status, m.Source, short(m.Machine), clock(m.Created), dash(when(m.Approved))}
			})
		},
	}
	c.Flags().StringVar(&query.Group, "group", "", "only measurements of this group")
	return c
}

func (p *Program) measurementShow() *cobra.Command {
	var group string
	c := &cobra.Command{
		Use: "show MEASUREMENT", Short: "Show a measurement with its claims", Args: exactly("MEASUREMENT"),
		RunE: func(c *cobra.Command, args []string) error {
			m, err := p.measurement(c.Context(), args[0], group)
			if err != nil {
				return err
			}
			return p.print(m, func(w io.Writer) { writeMeasurement(w, m) })
		},
	}
	c.Flags().StringVar(&group, "group", "", "the group, where several have it")
	return c
}

func (p *Program) measurement(ctx context.Context, argument, group string) (api.Measurement, error) {
	ref, err := reference("measurement", argument)
	if err != nil {
		return api.Measurement{}, err
	}
	m, err := call(ctx, p, func(ctx context.Context, o *api.OperatorClient) (api.Measurement, error) {
		return o.Measurement(ctx, ref, group)
	})
	return on("measurement/"+ref, m, err)
}

func writeMeasurement(w io.Writer, m api.Measurement) {
	fields(w,
		"id", m.ID, "group", m.Group, "status", m.Status, "source", m.Source, "seen on", "machine/"+short(m.Machine),
		"created", clock(m.Created), "approved", when(m.Approved), "approved by", m.ApprovedBy,
		"command line", m.CommandLine,
	)
	for _, c := range m.Claims {
		fmt.Fprintf(w, "  %s %s\n", c.Name, c.Value)
	}
	writeFindings(w, m.Findings)
}

func (p *Program) measurementApprove() *cobra.Command {
	var (
		group  string
		dryRun bool
	)
	c := &cobra.Command{
		Use: "approve MEASUREMENT", Short: "Let the machines of a group boot with a measurement", Args: exactly("MEASUREMENT"),
		RunE: func(c *cobra.Command, args []string) error {
			ref, err := reference("measurement", args[0])
			if err != nil {
				return err
			}
			m, err := call(c.Context(), p, func(ctx context.Context, o *api.OperatorClient) (api.Measurement, error) {
				return acting(o, dryRun).ApproveMeasurement(ctx, ref, group)
			})
			if m, err = on("measurement/"+ref, m, err); err != nil {
				return err
			}
			if dryRun {
				return p.print(m, func(w io.Writer) {
					fmt.Fprintln(w, "would approve:")
					writeMeasurement(w, m)
				})
			}
			return p.print(m, func(w io.Writer) {
				fmt.Fprintf(w, "measurement/%s is %s in group %s\n", short(m.ID), m.Status, m.Group)
			})
		},
	}
	c.Flags().StringVar(&group, "group", "", "the group (default: the one it was seen in)")
	addDryRun(c, &dryRun)
	return c
}

func (p *Program) measurementDismiss() *cobra.Command {
	var (
		group  string
		dryRun bool
	)
	c := &cobra.Command{
		Use: "dismiss MEASUREMENT", Short: "Forget a measurement that waits for approval", Args: exactly("MEASUREMENT"),
		Long: `Forget a measurement that waits for approval. Of one machine at most 16 wait: when
they are too many its next kernels are not announced any more. A machine that boots
it is refused as before, and it waits again.`,
		RunE: func(c *cobra.Command, args []string) error {
			ref, err := reference("measurement", args[0])
			if err != nil {
				return err
			}
			m, err := call(c.Context(), p, func(ctx context.Context, o *api.OperatorClient) (api.Measurement, error) {
				return acting(o, dryRun).DismissMeasurement(ctx, ref, group)
			})
			if m, err = on("measurement/"+ref, m, err); err != nil {
				return err
			}
			verb := "dismissed"
			if dryRun {
				verb = "would dismiss"
			}
			return p.print(m, func(w io.Writer) { fmt.Fprintf(w, "%s measurement/%s of group %s\n", verb, short(m.ID), m.Group) })
		},
	}
	c.Flags().StringVar(&group, "group", "", "the group that it waits in")
	addDryRun(c, &dryRun)
	return c
}

func (p *Program) measurementCompute() *cobra.Command {
	var (
		uki, base, group string
		submit           bool
	)
	c := &cobra.Command{
		Use: "compute --uki FILE --base REF", Short: "Compute the measurement of a boot to come from its files",
		Long: `Compute what machines will attest once they boot a unified kernel image: the
claims that follow from the file replace those of the base, which is a machine
(its last attested boot) or a measurement. With --submit it is entered and waits
for keywright measurement approve, which is exit code 6; without, nothing is
changed.`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if uki == "" || base == "" {
				return usagef("measurement compute wants --uki FILE and --base machine/NAME or measurement/ID")
			}
			if group != "" && !strings.HasPrefix(base, "measurement/") {
				return usagef("--group goes with --base measurement/ID: a machine has its group")
			}
			files, err := predictUKI(uki)
			if err != nil {
				return err
			}
			if submit {
				return p.submit(c.Context(), base, group, files)
			}
			return p.compute(c.Context(), base, group, files)
		},
	}
	c.Flags().StringVar(&uki, "uki", "", "the unified kernel image")
	c.Flags().StringVar(&base, "base", "", "machine/NAME or measurement/ID that the image will replace the boot of")
	c.Flags().StringVar(&group, "group", "", "the group of the base, where several have that measurement")
	c.Flags().BoolVar(&submit, "submit", false, "enter the measurement at the service")
	return c
}

func predictUKI(path string) (claims.Set, error) {
	f, err := os.Open(path)
	if err != nil {
		return claims.Set{}, fmt.Errorf("reading the unified kernel image: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return claims.Set{}, fmt.Errorf("reading the unified kernel image: %w", err)
	}
	set, err := predict.UKI(f, info.Size())
	if err != nil {
		return claims.Set{}, fmt.Errorf("reading the unified kernel image %s: %w", path, err)
	}
	return set, nil
}

func (p *Program) submit(ctx context.Context, base, group string, files claims.Set) error {
	m, err := call(ctx, p, func(ctx context.Context, o *api.OperatorClient) (api.Measurement, error) {
		return o.SubmitMeasurement(ctx, api.SubmitMeasurement{Base: base, Group: group, Files: files.Marshal()})
	})
	if m, err = on(base, m, err); err != nil {
		return err
	}
	err = p.print(m, func(w io.Writer) {
		fmt.Fprintf(w, "measurement/%s is %s in group %s\n", m.ID, m.Status, m.Group)
	})
	if err == nil && m.Approved == nil {
		return &waiting{m.ID, m.Group}
	}
	return err
}

// computed is what compute prints.
type computed struct {
	ID          string           `json:"id"`
	Base        string           `json:"base"`
	Group       string           `json:"group"`
	Differences []api.Difference `json:"differences"`
}

func (p *Program) compute(ctx context.Context, base, group string, files claims.Set) error {
	from, err := p.baseOf(ctx, base, group)
	if err != nil {
		return err
	}
	before, err := setOf(from)
	if err != nil {
		return err
	}
	next, err := claims.Successor(before, files)
	if err != nil {
		return err
	}
	digest := next.Digest()
	result := computed{ID: fmt.Sprintf("%x", digest), Base: from.ID, Group: from.Group, Differences: []api.Difference{}}
	for _, d := range claims.Diff(before, next) {
		result.Differences = append(result.Differences, api.Difference(d))
	}
	return p.print(result, func(w io.Writer) {
		fmt.Fprintf(w, "measurement/%s, after measurement/%s of group %s\n", result.ID, short(result.Base), result.Group)
		writeDifferences(w, result.Differences)
	})
}

func (p *Program) baseOf(ctx context.Context, base, group string) (api.Measurement, error) {
	if strings.HasPrefix(base, "measurement/") {
		return p.measurement(ctx, base, group)
	}
	m, err := p.machine(ctx, base)
	if err != nil {
		return api.Measurement{}, err
	}
	if m.Attested == "" {
		return api.Measurement{}, fmt.Errorf("%s has attested no boot yet", refOf(m.Machine))
	}
	return p.measurement(ctx, m.Attested, m.Group)
}

func setOf(m api.Measurement) (claims.Set, error) {
	list := make([]claims.Claim, 0, len(m.Claims))
	for _, c := range m.Claims {
		list = append(list, claims.Claim(c))
	}
	set, err := claims.New(claims.Measurement, list)
	if err != nil {
		return claims.Set{}, fmt.Errorf("reading measurement/%s: %w", short(m.ID), err)
	}
	return set, nil
}
