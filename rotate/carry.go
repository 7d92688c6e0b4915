package rotate

import (
	"context"
	"slices"
	"time"
)

// Carrier carries out steps: over the API, or inside of the service.
type Carrier interface {
	// Plan plans anew.
	Plan(ctx context.Context) (Agenda, error)
	// CarryOut tries steps that wait for none of each other, and tells of each what came
	// of it. Its error ends the run; a step that fails does not.
	CarryOut(ctx context.Context, steps []Step, done func(Result)) error
}

// Agenda is what a plan lets begin.
type Agenda struct {
	Now   time.Time
	Steps []Step
}

// Result is what came of a step.
type Result struct {
	Step *Step
	Err  error // nil where it is done
	// Refused tells that the state of things or a policy does not allow it.
	Refused bool
}

// Terms bound a run.
type Terms struct {
	// Kinds are what is carried out; the rest is counted.
	Kinds []Kind
	// Once has nothing planned anew: for a run that changes nothing.
	Once bool
}

// Carried are the kinds that are carried out, by the command and by the service.
func Carried() []Kind {
	return []Kind{RotateKeyring, RewrapKeyring, DisableKeyringVersion, DestroyKeyringVersion, RekeyVolume, ReencryptVolume, DestroySecret, RetireMeasurement}
}

// Run is what came of planning and carrying out.
type Run struct {
	Done map[Kind]int
	// NotRun counts what the last plan let begin, of kinds that the terms leave out;
	// Behind what comes after a step that is not done.
	NotRun, Behind map[Kind]int
	Failed         []Result
	Refused        int // of those that failed

	terms    Terms
	tried    map[Action]bool
	finished map[Action]bool
}

// Carry plans, carries out what may begin, and plans anew until a plan holds nothing
// that was not tried. Only the rows know what is left: whoever calls it again, after
// whatever, goes on. What was done is in the run also where it ends with an error.
func Carry(ctx context.Context, c Carrier, terms Terms) (*Run, error) {
	r := &Run{
		Done: map[Kind]int{}, NotRun: map[Kind]int{}, Behind: map[Kind]int{},
		terms: terms, tried: map[Action]bool{}, finished: map[Action]bool{},
	}
	for {
		agenda, err := c.Plan(ctx)
		if err != nil {
			return r, err
		}
		before := len(r.tried)
		if err := r.round(ctx, c, &agenda); err != nil {
			return r, err
		}
		if len(r.tried) == before || terms.Once {
			return r, nil
		}
	}
}

// round carries out one plan, in the order that its steps ask for.
func (r *Run) round(ctx context.Context, c Carrier, agenda *Agenda) error {
	for {
		steps := r.next(agenda)
		if len(steps) == 0 {
			return nil
		}
		if err := c.CarryOut(ctx, steps, r.note); err != nil {
			return err
		}
	}
}

// next returns the steps that may begin now, and counts those that may not.
func (r *Run) next(agenda *Agenda) (steps []Step) {
	clear(r.NotRun)
	clear(r.Behind)
	for _, s := range agenda.Steps {
		switch {
		case s.NotBefore.After(agenda.Now) || r.tried[s.Action]:
		case !slices.Contains(r.terms.Kinds, s.Kind):
			r.NotRun[s.Kind]++
		case slices.ContainsFunc(s.After, func(a Action) bool { return !r.finished[a] }):
			r.Behind[s.Kind]++
		default:
			r.tried[s.Action] = true
			steps = append(steps, s)
		}
	}
	return steps
}

func (r *Run) note(result Result) {
	s := result.Step
	switch {
	case result.Err == nil:
		r.Done[s.Kind]++
		// An order is given; its machine carries it out later. A run that changes nothing
		// finishes nothing.
		r.finished[s.Action] = s.Kind != RekeyVolume && s.Kind != ReencryptVolume && !r.terms.Once
		return
	case result.Refused:
		r.Refused++
	}
	r.Failed = append(r.Failed, result)
}

// Count returns how many steps were done.
func (r *Run) Count() (count int) {
	for _, n := range r.Done {
		count += n
	}
	return count
}
