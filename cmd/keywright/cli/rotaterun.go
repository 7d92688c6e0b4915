package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keywright.dev/kms/api"
	"keywright.dev/rotate"
)

// kindsOf are what --only names; all without it.
func kindsOf(only []string) []rotate.Kind {
	if len(only) == 0 {
		return rotate.Carried()
	}
	kinds := make([]rotate.Kind, 0, len(only))
	for _, kind := range only {
		kinds = append(kinds, rotate.Kind(kind))
	}
	return kinds
}

func joinKinds(kinds []rotate.Kind) string {
	names := make([]string, 0, len(kinds))
	for _, kind := range kinds {
		names = append(names, string(kind))
	}
	return strings.Join(names, ", ")
}

func (p *Program) rotateRun() *cobra.Command {
	var (
		due, dryRun bool
		evenPaused  bool
		only        []string
		out         compromise
		reason      string
	)
	c := &cobra.Command{
		Use: "run", Short: "Carry out what is due, or what is to be done about a key that is out",
		Long: `With --due, carry out the steps of the plan that may begin: keyrings are rotated and
rewrapped, and versions disabled; machines are ordered to rekey and reencrypt their
volumes; measurements are retired; versions, and secrets whose retain_for_restore is over,
are destroyed where the policy permits the caller that. It plans anew until nothing is left
that it did not try. So it can be interrupted, and be run again by a cron at any time; the
machines carry their orders out later: see rotate status. A reencryption that would lose
keyslots waits until somebody agrees to that.

The exit code is 4 where a step failed, or something is overdue that nobody answers for
and no machine is about to mend: an order of it that has not failed is on its way for as
long as the policy's answer_within.

With --compromised, carry out what is to be done about a key that is out, as rotate plan
--compromised shows it: a fresh keyring version first, then rekeys, those of a machine
that is out at attested boots alone, where most is at stake first. Run it again, in the
same words, until nothing is left: then the exit code is 0, and before that 4.`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if due == out.given() {
				return usagef("say --due, for all that is due, or --compromised, for what is to be done about a key that is out")
			}
			if err := out.refuse(); err != nil {
				return err
			}
			if due && reason != "" {
				return usagef("--reason goes with --compromised: what is due has its reason from the policy")
			}
			for _, kind := range only {
				if !slices.Contains(rotate.Carried(), rotate.Kind(kind)) {
					return usagef("--only is one of %s", joinKinds(rotate.Carried()))
				}
			}
			r := newRotation(p, kindsOf(only), dryRun)
			r.evenPaused = evenPaused
			if out.given() {
				return r.mend(c.Context(), &out, reason)
			}
			return r.finish(r.carry(c.Context()))
		},
	}
	c.Flags().BoolVar(&due, "due", false, "carry out all that is due")
	c.Flags().StringSliceVar(&only, "only", nil, "only steps of this kind, such as rekey-volume; may be repeated")
	out.flags(c)
	c.Flags().StringVar(&reason, "reason", "", "why; required with --compromised, and goes into the audit log")
	c.Flags().BoolVar(&evenPaused, "even-paused", false, "carry it out also while rotations are paused")
	addDryRun(c, &dryRun)
	return c
}

// rotated is what rotate run prints.
type rotated struct {
	DryRun bool `json:"dry_run,omitempty"`
	// Done counts steps by their kind, Rows what was rewrapped.
	Done   map[rotate.Kind]int `json:"done"`
	Rows   int                 `json:"rows"`
	Failed []undone            `json:"failed"`
	// NotRun counts due steps of kinds that were not asked for, or that this verb
	// carries out never.
	NotRun map[rotate.Kind]int `json:"not_run"`
	// Waiting is due and waits for something.
	Waiting  []api.RotationTotal  `json:"waiting"`
	Overdue  api.RotationLateness `json:"overdue"`
	UnderWay api.RotationLateness `json:"under_way"`
	Excused  api.RotationLateness `json:"excused"`
}

// undone is a step that failed.
type undone struct {
	Kind   string `json:"kind"`
	Object string `json:"object"`
	Error  string `json:"error"`
}

// rotation is a run under way, over the API.
type rotation struct {
	program *Program
	terms   rotate.Terms
	dryRun  bool
	// reason goes into orders; without one, that of their steps.
	reason string
	// look makes a plan.
	look func(context.Context) ([]api.RotationStep, time.Time, error)
	// current are the current versions of keyrings, as they were before the plan.
	current map[string]uint32
	run     *rotate.Run
	result  rotated
	record
}

func newRotation(p *Program, kinds []rotate.Kind, dryRun bool) *rotation {
	r := &rotation{program: p, terms: rotate.Terms{Kinds: kinds, Once: dryRun}, dryRun: dryRun, run: &rotate.Run{}}
	r.look, r.why = r.due, "due"
	r.result = rotated{DryRun: dryRun, Done: map[rotate.Kind]int{}, NotRun: map[rotate.Kind]int{}, Failed: []undone{}, Waiting: []api.RotationTotal{}}
	return r
}

// carry plans and carries out until a plan holds nothing new.
func (r *rotation) carry(ctx context.Context) error {
	if err := r.check(ctx); err != nil {
		return err
	}
	run, err := rotate.Carry(ctx, r, r.terms)
	r.run = run
	r.result.Done, r.result.NotRun = run.Done, run.NotRun
	for _, f := range run.Failed {
		r.result.Failed = append(r.result.Failed, undone{string(f.Step.Kind), f.Step.Object.String(), explain(f.Err)})
	}
	r.end(ctx, err != nil)
	return err
}

// Plan implements [rotate.Carrier].
func (r *rotation) Plan(ctx context.Context) (rotate.Agenda, error) {
	r.current = make(map[string]uint32)
	for k, err := range everything(ctx, r.program, api.ListQuery{}, (*api.OperatorClient).Keyrings) {
		if err != nil {
			return rotate.Agenda{}, err
		}
		r.current[k.Name] = k.Current
	}
	steps, now, err := r.look(ctx)
	agenda := rotate.Agenda{Now: now}
	for i := range steps {
		step, err := stepFrom(&steps[i])
		if err != nil {
			return rotate.Agenda{}, err
		}
		agenda.Steps = append(agenda.Steps, step)
	}
	return agenda, err
}

// due plans what is due, and notes what is due beside it.
func (r *rotation) due(ctx context.Context) ([]api.RotationStep, time.Time, error) {
	plan, err := call(ctx, r.program, func(ctx context.Context, o *api.OperatorClient) (api.RotationPlan, error) {
		return o.RotationPlan(ctx, time.Time{}, api.MaxPlanSteps)
	})
	if err != nil {
		return nil, time.Time{}, err
	}
	r.result.Overdue, r.result.UnderWay, r.result.Excused = plan.Overdue, plan.UnderWay, plan.Excused
	r.result.wait(plan.Totals)
	return plan.Steps, plan.At, nil
}

// wait notes what waits for something.
func (d *rotated) wait(totals []api.RotationTotal) {
	d.Waiting = []api.RotationTotal{}
	for _, t := range totals {
		if t.WaitsFor != "" {
			d.Waiting = append(d.Waiting, t)
		}
	}
}

func stepFrom(s *api.RotationStep) (rotate.Step, error) {
	object, err := rotate.ParseObject(s.Object)
	object.Group = s.Group
	step := rotate.Step{
		Action: rotate.Action{Kind: rotate.Kind(s.Kind), Object: object}, Machine: s.Machine, Rule: s.Rule, Reason: s.Reason,
		Due: s.Due, NotBefore: s.NotBefore, AtBoot: s.AtBoot, Away: s.Away, Boots: s.Boots, Wait: time.Duration(s.WaitDays) * 24 * time.Hour,
	}
	for _, a := range s.After {
		object, afterErr := rotate.ParseObject(a.Object)
		err = errors.Join(err, afterErr)
		step.After = append(step.After, rotate.Action{Kind: rotate.Kind(a.Kind), Object: object})
	}
	return step, err
}

// CarryOut implements [rotate.Carrier].
func (r *rotation) CarryOut(ctx context.Context, steps []rotate.Step, done func(rotate.Result)) error {
	if err := r.begin(ctx); err != nil {
		return err
	}
	for i := range steps {
		s := &steps[i]
		err := r.do(ctx, s)
		code := exitCode(err)
		if err != nil && (ctx.Err() != nil || code == ExitUnavailable) {
			return &about{s.Object.String(), err}
		}
		done(rotate.Result{Step: s, Err: err, Refused: err != nil && code == ExitRefused})
	}
	return nil
}

func (r *rotation) do(ctx context.Context, s *rotate.Step) error {
	_, ref, _ := strings.Cut(s.Object.String(), "/")
	if s.Kind == rotate.RewrapKeyring {
		return r.rewrap(ctx, ref)
	}
	_, err := call(ctx, r.program, func(ctx context.Context, o *api.OperatorClient) (any, error) {
		o = acting(o, r.dryRun)
		switch s.Kind {
		case rotate.RotateKeyring:
			return o.RotateKeyring(ctx, ref, r.current[ref])
		case rotate.DisableKeyringVersion:
			return o.DisableKeyring(ctx, ref)
		case rotate.DestroyKeyringVersion:
			return o.DestroyKeyring(ctx, ref, api.DestroyKeyring{Days: int(s.Wait / (24 * time.Hour))})
		case rotate.RekeyVolume:
			return o.RekeyVolume(ctx, ref, api.RekeyVolume{Reason: cmp.Or(r.reason, s.Reason), AtBoot: s.AtBoot})
		case rotate.ReencryptVolume:
			return o.ReencryptVolume(ctx, ref, api.ReencryptVolume{Reason: cmp.Or(r.reason, s.Reason)})
		case rotate.DestroySecret:
			volume, _, _ := strings.Cut(ref, "@")
			return o.DestroySecret(ctx, volume, api.DestroySecret{Version: s.Object.Version, Reason: cmp.Or(r.reason, s.Reason)})
		case rotate.RetireMeasurement:
			return o.RetireMeasurement(ctx, ref, api.RetireMeasurement{Group: s.Object.Group, Boots: s.Boots})
		default:
			return nil, fmt.Errorf("this version carries out no %s", s.Kind)
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
	if printErr := r.program.print(r.result, func(w io.Writer) { r.result.write(w) }); err == nil {
		err = printErr
	}
	switch failed := r.failed(); {
	case err != nil:
		return err
	case failed != nil:
		return failed
	case r.result.Overdue.Count > 0 && !r.dryRun:
		return &partly{fmt.Errorf("%d are older than the policy lets them become", r.result.Overdue.Count)}
	}
	return nil
}

// failed says that steps failed; nil where none did.
func (r *rotation) failed() error {
	done, failed := r.run.Count(), len(r.result.Failed)
	switch {
	case failed > 0 && failed == r.run.Refused && done == 0:
		return refusedf("%d steps were refused, and none was carried out", failed)
	case failed > 0:
		return &partly{fmt.Errorf("%d steps failed, %d were carried out", failed, done)}
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
	for _, kind := range rotate.Carried() {
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
	writeLate(w, "overdue, and under way", d.UnderWay)
	writeLate(w, "excused", d.Excused)
}
