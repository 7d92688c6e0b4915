package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"keywright.dev/kms"
	"keywright.dev/kms/audit"
	"keywright.dev/rotate"
)

const (
	// StandEvery is how often a server says that it leads, or looks who does.
	StandEvery = 10 * time.Second
	// StandsInTerm is how often it does so while its term lasts.
	StandsInTerm = 3
	// endTimeout bounds how long the end of a run waits for the store.
	endTimeout = 10 * time.Second
	// rewrapPage is how many secrets are rewrapped between two looks at the term.
	rewrapPage = 500
)

// Queue has steps worked on; package rotate/jobs implements it.
type Queue interface {
	// Do calls work once for each step, a few at a time, and returns once all are done.
	// The first error of work ends it.
	Do(ctx context.Context, steps []rotate.Step, work func(context.Context, *rotate.Step) error) error
}

// schedule keeps the schedule, if there is one, until ctx ends; then it closes what it
// returned.
func (s *Server) schedule(ctx context.Context) <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if s.Schedule != nil {
			s.keepSchedule(ctx)
		}
	}()
	return ended
}

// keepSchedule carries out what is due by the schedule.
func (s *Server) keepSchedule(ctx context.Context) {
	notDone := later{}
	k := &rotate.Keeper{
		Schedule: s.Schedule, Clock: s.Clock, Office: s.Leader, TakeOver: s.takeOver,
		Run: func(ctx context.Context, term kms.Term) error { return s.runSchedule(ctx, term, notDone) },
		Failed: func(err error) {
			level := slog.LevelError
			if errors.Is(err, context.Canceled) || errors.Is(err, kms.ErrDeposed) {
				level = slog.LevelInfo // the next leader goes on
			}
			s.Logger.Log(ctx, level, "rotating by the schedule", "error", err)
		},
	}
	ticker := time.NewTicker(s.StandEvery)
	defer ticker.Stop()
	k.Keep(ctx, ticker.C)
}

// itself is the service as an operator, within a term.
func itself(term kms.Term) kms.Operator {
	return kms.Operator{Actor: rotationActor(), Term: &term}
}

func rotationActor() audit.Actor { return audit.Actor{Kind: audit.ActorService, ID: "rotation"} }

// takeOver ends the runs that leaders before left.
func (s *Server) takeOver(ctx context.Context, term kms.Term) (left bool, err error) {
	s.Logger.Info("this server rotates by the schedule now", "epoch", term.Epoch)
	runs, err := s.Store.RotationRuns(ctx, kms.MaxRotationRuns)
	if err != nil {
		return false, err
	}
	for i := range runs {
		if r := &runs[i]; r.Outcome == "" && r.Epoch != 0 && r.Epoch != term.Epoch {
			left = true
			if _, err := s.Service.EndRun(ctx, itself(term), r.ID, kms.RunResult{Outcome: kms.RunStopped}); err != nil {
				return left, err
			}
		}
	}
	return left, nil
}

// runSchedule carries out all that is due.
func (s *Server) runSchedule(ctx context.Context, term kms.Term, notDone later) error {
	if pause, err := s.Store.RotationPause(ctx); err != nil || pause != nil {
		return err
	}
	c := &carrier{server: s, by: itself(term), later: notDone}
	run, err := rotate.Carry(ctx, c, rotate.Terms{Kinds: rotate.Carried()})
	if errors.Is(err, kms.ErrPaused) {
		err = nil // the run's end says so
	}
	return errors.Join(err, c.end(ctx, run))
}

// carrier carries steps out inside of the service.
type carrier struct {
	server *Server
	by     kms.Operator
	run    *kms.RotationRun // once it did something
	// through tells that nothing new was in the last plan.
	through bool
	later   later
	// current are the current versions of keyrings, as they were before the plan.
	current map[string]uint32
	// denied is what the last plan has, and no policy permits the service. It is no run
	// by itself: there would be one at each time of the schedule.
	denied []rotate.Result
}

// Plan implements [rotate.Carrier].
func (c *carrier) Plan(ctx context.Context) (rotate.Agenda, error) {
	s := c.server
	now := s.Clock()
	state, err := s.rotationState(ctx, now)
	if err != nil {
		return rotate.Agenda{}, err
	}
	c.current = make(map[string]uint32)
	for i := range state.Keyrings {
		c.current[state.Keyrings[i].Name] = state.Keyrings[i].Current
	}
	plan, err := s.duePlan(ctx, &state, now, now)
	if err != nil {
		return rotate.Agenda{}, err
	}
	c.through = true
	return rotate.Agenda{Now: now, Steps: c.allowed(ctx, plan.Steps)}, nil
}

// allowed leaves out what no policy permits the service, and what was refused, or failed,
// a short while ago.
func (c *carrier) allowed(ctx context.Context, steps []rotate.Step) (allowed []rotate.Step) {
	c.denied = nil
	c.later.forget(c.server.Clock())
	for i := range steps {
		s := &steps[i]
		_, waits := c.later[s.Action]
		switch on, err := c.resource(ctx, s); {
		case waits:
			continue
		case err != nil: // it will say so
		default:
			if _, err := c.permitted(actionOf(s.Kind), on); err != nil {
				c.denied = append(c.denied, rotate.Result{Step: s, Err: err, Refused: true})
				continue
			}
		}
		allowed = append(allowed, *s)
	}
	return allowed
}

// retryAfter is how long a step that was not done is left alone: a schedule may come
// every minute, and each try would be a run in the history.
const retryAfter = time.Hour

// later holds the steps that were not done a short while ago. Only what is remembered is
// lost with the process.
type later map[rotate.Action]time.Time

// forget drops those that have waited long enough, or whose time is yet to come since the
// clock was put back.
func (l later) forget(now time.Time) {
	maps.DeleteFunc(l, func(_ rotate.Action, since time.Time) bool { return now.Before(since) || now.Sub(since) >= retryAfter })
}

// CarryOut implements [rotate.Carrier].
func (c *carrier) CarryOut(ctx context.Context, steps []rotate.Step, done func(rotate.Result)) error {
	c.through = false
	if c.run == nil {
		run, err := c.server.Service.BeginRun(ctx, c.by, "schedule", false)
		if err != nil {
			return err
		}
		c.run = run
	}
	results := make(chan rotate.Result, len(steps))
	err := c.server.Queue.Do(ctx, steps, func(ctx context.Context, s *rotate.Step) error {
		result, err := c.try(ctx, s)
		if err == nil {
			results <- result
		}
		return err
	})
	close(results)
	for r := range results {
		if done(r); r.Err != nil {
			c.later[r.Step.Action] = c.server.Clock()
		}
	}
	return err
}

// try does a step. Its error ends the run.
func (c *carrier) try(ctx context.Context, s *rotate.Step) (rotate.Result, error) {
	err := c.do(ctx, s)
	var (
		state  *kms.StateError
		in     *kms.InUseError
		denied *failure
	)
	switch {
	case err == nil:
	case ctx.Err() != nil, errors.Is(err, kms.ErrDeposed), errors.Is(err, kms.ErrPaused):
		return rotate.Result{}, err
	}
	refused := errors.As(err, &state) || errors.As(err, &in) || errors.As(err, &denied)
	return rotate.Result{Step: s, Err: err, Refused: refused}, nil
}

// end notes what came of the run, also where its context has ended.
func (c *carrier) end(ctx context.Context, run *rotate.Run) error {
	if c.run == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	failed := append(slices.Clone(run.Failed), c.denied...)
	result := kms.RunResult{Outcome: kms.RunStopped, Done: run.Count(), Refused: run.Refused + len(c.denied), Failed: len(run.Failed) - run.Refused}
	switch {
	case !c.through:
	case len(failed) > 0:
		result.Outcome = kms.RunPartly
	default:
		result.Outcome = kms.RunDone
	}
	for _, f := range failed[:min(len(failed), kms.MaxRunFailures)] {
		result.Failures = append(result.Failures, kms.RunFailure{Kind: string(f.Step.Kind), Object: f.Step.Object.String(), Error: f.Err.Error()})
	}
	_, err := c.server.Service.EndRun(ctx, c.by, c.run.ID, result)
	if errors.Is(err, kms.ErrDeposed) {
		return nil // who leads now has ended it
	}
	if err != nil {
		return fmt.Errorf("ending run %s: %w", c.run.ID, err)
	}
	return nil
}
