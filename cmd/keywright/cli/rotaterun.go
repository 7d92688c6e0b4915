package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keywright.dev/kms/api"
)

// The kinds of steps, as plans name them.
const (
	kindRotate       = "rotate-keyring"
	kindRewrap       = "rewrap-keyring"
	kindDisable      = "disable-keyring-version"
	kindDestroy      = "destroy-keyring-version"
	kindRekey        = "rekey-volume"
	kindDropSecret   = "destroy-secret"
	kindReencryption = "reencrypt-volume"
)

// runKinds are what rotate run carries out.
func runKinds() []string {
	return []string{kindRotate, kindRewrap, kindDisable, kindDestroy, kindRekey, kindReencryption}
}

func (p *Program) rotateRun() *cobra.Command {
	var (
		due, dryRun bool
		only        []string
	)
	c := &cobra.Command{
		Use: "run --due", Short: "Carry out what is due",
		Long: `Carry out the steps of the plan that may begin: keyrings are rotated and rewrapped,
versions disabled, and destroyed where the policy permits the caller that, and machines
are ordered to rekey and reencrypt their volumes. It plans anew until nothing is left that it did not
try. So it can be interrupted, and be run again by a cron at any time; the machines carry
their orders out later: see rotate status. It does not carry out destroy-secret, and counts
it. A reencryption that would lose keyslots waits until somebody agrees to that.

The exit code is 4 where a step failed, or something is overdue that nobody answers for.`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if !due {
				return usagef("say --due: all that is due is carried out")
			}
			for _, kind := range only {
				if !slices.Contains(runKinds(), kind) {
					return usagef("--only is one of %s", strings.Join(runKinds(), ", "))
				}
			}
			r := &rotation{program: p, only: only, dryRun: dryRun, tried: make(map[string]bool)}
			r.result = rotated{DryRun: dryRun, Done: make(map[string]int), NotRun: make(map[string]int), Failed: []undone{}, Waiting: []api.RotationTotal{}}
			return r.finish(r.all(c.Context()))
		},
	}
	c.Flags().BoolVar(&due, "due", false, "carry out all that is due")
	c.Flags().StringSliceVar(&only, "only", nil, "only steps of this kind, such as rekey-volume; may be repeated")
	addDryRun(c, &dryRun)
	return c
}

// rotated is what rotate run prints.
type rotated struct {
	DryRun bool `json:"dry_run,omitempty"`
	// Done counts steps by their kind, Rows what was rewrapped.
	Done   map[string]int `json:"done"`
	Rows   int            `json:"rows"`
	Failed []undone       `json:"failed"`
	// NotRun counts due steps of kinds that were not asked for, or that this verb
	// carries out never.
	NotRun map[string]int `json:"not_run"`
	// Waiting is due and waits for something.
	Waiting []api.RotationTotal  `json:"waiting"`
	Overdue api.RotationLateness `json:"overdue"`
	Excused api.RotationLateness `json:"excused"`
}

// undone is a step that failed.
type undone struct {
	Kind   string `json:"kind"`
	Object string `json:"object"`
	Error  string `json:"error"`
}

// rotation is a run under way.
type rotation struct {
	program *Program
	only    []string
	dryRun  bool
	tried   map[string]bool
	// current are the current versions of keyrings, as they were before the plan.
	current map[string]uint32
	refused int
	result  rotated
}

// all plans and carries out until a plan holds nothing new.
func (r *rotation) all(ctx context.Context) error {
	for {
		plan, err := r.plan(ctx)
		if err != nil {
			return err
		}
		steps := r.choose(&plan)
		for i := range steps {
			if err := r.carryOut(ctx, &steps[i]); err != nil {
				return err
			}
		}
		if len(steps) == 0 || r.dryRun {
			return nil
		}
	}
}

func (r *rotation) plan(ctx context.Context) (api.RotationPlan, error) {
	r.current = make(map[string]uint32)
	for k, err := range everything(ctx, r.program, api.ListQuery{}, (*api.OperatorClient).Keyrings) {
		if err != nil {
			return api.RotationPlan{}, err
		}
		r.current[k.Name] = k.Current
	}
	plan, err := call(ctx, r.program, func(ctx context.Context, o *api.OperatorClient) (api.RotationPlan, error) {
		return o.RotationPlan(ctx, time.Time{}, api.MaxPlanSteps)
	})
	return plan, err
}

// choose returns the steps to carry out, and notes what is due beside them.
func (r *rotation) choose(plan *api.RotationPlan) (steps []api.RotationStep) {
	r.result.Overdue, r.result.Excused, r.result.Waiting = plan.Overdue, plan.Excused, []api.RotationTotal{}
	r.result.NotRun = make(map[string]int)
	for _, t := range plan.Totals {
		if t.WaitsFor != "" {
			r.result.Waiting = append(r.result.Waiting, t)
		}
	}
	for _, s := range plan.Steps {
		name := s.Kind + " " + s.Object
		switch {
		case s.NotBefore.After(plan.At) || r.tried[name]:
		case !slices.Contains(runKinds(), s.Kind), len(r.only) > 0 && !slices.Contains(r.only, s.Kind):
			r.result.NotRun[s.Kind]++
		default:
			r.tried[name] = true
			steps = append(steps, s)
		}
	}
	return steps
}

// carryOut tries a step. Its error ends the run; a step that fails does not.
func (r *rotation) carryOut(ctx context.Context, s *api.RotationStep) error {
	err := r.do(ctx, s)
	if err == nil {
		r.result.Done[s.Kind]++
		return nil
	}
	switch code := exitCode(err); {
	case ctx.Err() != nil, code == ExitUnavailable:
		return &about{s.Object, err}
	case code == ExitRefused:
		r.refused++
	}
	r.result.Failed = append(r.result.Failed, undone{s.Kind, s.Object, explain(err)})
	return nil
}

func (r *rotation) do(ctx context.Context, s *api.RotationStep) error {
	_, name, _ := strings.Cut(s.Object, "/")
	if s.Kind == kindRewrap {
		return r.rewrap(ctx, name)
	}
	_, err := call(ctx, r.program, func(ctx context.Context, o *api.OperatorClient) (any, error) {
		o = acting(o, r.dryRun)
		switch s.Kind {
		case kindRotate:
			return o.RotateKeyring(ctx, name, r.current[name])
		case kindDisable:
			return o.DisableKeyring(ctx, name)
		case kindDestroy:
			return o.DestroyKeyring(ctx, name, api.DestroyKeyring{Days: s.WaitDays})
		case kindReencryption:
			return o.ReencryptVolume(ctx, name, api.ReencryptVolume{Reason: s.Reason})
		default:
			return o.RekeyVolume(ctx, name, api.RekeyVolume{Reason: s.Reason})
		}
	})
	return err
}

func (r *rotation) rewrap(ctx context.Context, name string) error {
	k, err := r.program.keyring(ctx, name)
	if err != nil {
		return err
	}
	w := &rewrapping{program: r.program, keyring: k.Name, limiter: limiterOf(0), page: rewrapPage}
	if r.dryRun {
		_, err := w.ask(ctx, "", true)
		return err
	}
	err = w.all(ctx, k)
	r.result.Rows += w.total.Done
	if n := len(w.total.Failed); err == nil && n > 0 {
		err = fmt.Errorf("%d secrets or keys do not open: keywright keyring rewrap %s names them", n, k.Name)
	}
	return err
}

// finish prints the report, also of a run that ended early.
func (r *rotation) finish(err error) error {
	done := 0
	for _, n := range r.result.Done {
		done += n
	}
	if printErr := r.program.print(r.result, func(w io.Writer) { r.result.write(w) }); err == nil {
		err = printErr
	}
	failed := len(r.result.Failed)
	switch {
	case err != nil:
		return err
	case failed > 0 && failed == r.refused && done == 0:
		return refusedf("%d steps were refused, and none was carried out", failed)
	case failed > 0:
		return &partly{fmt.Errorf("%d steps failed, %d were carried out", failed, done)}
	case r.result.Overdue.Count > 0 && !r.dryRun:
		return &partly{fmt.Errorf("%d are older than the policy lets them become", r.result.Overdue.Count)}
	}
	return nil
}

// maxFailedShown bounds what a screen shows of what failed.
const maxFailedShown = 5

func (d *rotated) write(w io.Writer) {
	verb := "done"
	if d.DryRun {
		verb = "would be done"
	}
	if len(d.Done) == 0 {
		fmt.Fprintf(w, "%s: nothing\n", verb)
	}
	for _, kind := range append(runKinds(), kindDropSecret) {
		if n := d.Done[kind]; n > 0 {
			fmt.Fprintf(w, "%s: %s %d\n", verb, kind, n)
		}
		if n := d.NotRun[kind]; n > 0 {
			fmt.Fprintf(w, "due and not run: %s %d\n", kind, n)
		}
	}
	if d.Rows > 0 {
		fmt.Fprintf(w, "%d secrets and keys were rewrapped\n", d.Rows)
	}
	for _, f := range d.Failed[:min(len(d.Failed), maxFailedShown)] {
		fmt.Fprintf(w, "failed: %s %s: %s\n", f.Kind, f.Object, f.Error)
	}
	if n := len(d.Failed) - maxFailedShown; n > 0 {
		fmt.Fprintf(w, "and %d more failed\n", n)
	}
	for _, t := range d.Waiting {
		fmt.Fprintf(w, "due by rule %s: %s %d, which wait for %s\n", t.Rule, t.Kind, t.Count, waitsFor(t.WaitsFor))
	}
	writeLate(w, "overdue", d.Overdue)
	writeLate(w, "excused", d.Excused)
}
