package kms

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"time"

	"keywright.dev/kms/audit"
)

// The actions about rotations as a whole.
const (
	ActionPauseRotation  = "rotation.pause"
	ActionResumeRotation = "rotation.resume"
	// ActionRunRotation is of the entries that a run begins and ends with.
	ActionRunRotation = "rotation.run"
)

// RotationLeader names the office of the server that rotates by its own schedule.
const RotationLeader = "rotation"

const (
	// MaxRotationRuns bounds the runs that are kept.
	MaxRotationRuns = 1000
	// MaxRunFailures bounds the failures that are kept of a run; the rest is counted.
	MaxRunFailures = 20
)

// RotationPause holds what is carried out of rotations, until somebody ends it.
type RotationPause struct {
	Since  time.Time
	By     string
	Reason string
}

func (p *RotationPause) refusal() error {
	return fmt.Errorf("%w: %w", ErrPaused, disallow("rotations are paused since %s by %s: keywright rotate resume ends that", formatTime(p.Since), p.By))
}

// RunOutcome is how a run ended.
type RunOutcome string

// The outcomes. A run without one is under way, or its end was never heard of.
const (
	RunDone    RunOutcome = "done"
	RunPartly  RunOutcome = "partly"  // steps were refused, or failed
	RunStopped RunOutcome = "stopped" // before it was through
)

// RotationRun is one time that rotations were carried out. Runs that found nothing to
// do are not kept.
type RotationRun struct {
	ID    string
	Why   string
	By    string
	Epoch uint64 // of the leader that runs it; 0: no leader
	Started,
	Ended time.Time
	RunResult
}

// RunResult is what came of a run.
type RunResult struct {
	Outcome               RunOutcome
	Done, Refused, Failed int
	// Failures names the first of what was refused or failed.
	Failures []RunFailure
}

// RunFailure is a step that was refused, or failed.
type RunFailure struct {
	Kind   string `json:"kind"`
	Object string `json:"object"`
	Error  string `json:"error"`
}

// PauseRotation holds rotations: no server begins a step by itself, and no run of an
// operator begins that does not ask for it. What has begun at machines goes on.
func (s *Service) PauseRotation(ctx context.Context, by Operator, reason string) (*RotationPause, error) {
	pause := RotationPause{Since: s.Clock(), By: by.changedBy(), Reason: reason}
	err := s.change(ctx, by, Key{Pause: true}, func(state State) (Outcome, error) {
		if p := state.Pause; p != nil {
			return Outcome{}, disallow("rotations are paused already, since %s by %s", formatTime(p.Since), p.By)
		}
		d := by.draft(ActionPauseRotation, "", "")
		d.fact("reason", "", reason)
		return s.entered(Outcome{Pause: &pause}, d, audit.Done, nil)
	})
	if err != nil {
		return nil, fmt.Errorf("pausing rotations: %w", err)
	}
	return &pause, nil
}

// ResumeRotation ends a pause.
func (s *Service) ResumeRotation(ctx context.Context, by Operator) error {
	err := s.change(ctx, by, Key{Pause: true}, func(state State) (Outcome, error) {
		if state.Pause == nil {
			return Outcome{}, disallow("rotations are not paused")
		}
		return s.entered(Outcome{Resume: true}, by.draft(ActionResumeRotation, "", ""), audit.Done, nil)
	})
	if err != nil {
		return fmt.Errorf("resuming rotations: %w", err)
	}
	return nil
}

// BeginRun notes that rotations are carried out from now on, which a pause refuses
// unless evenPaused says so.
func (s *Service) BeginRun(ctx context.Context, by Operator, why string, evenPaused bool) (*RotationRun, error) {
	var id [8]byte
	if _, err := io.ReadFull(s.Random, id[:]); err != nil {
		return nil, fmt.Errorf("naming a run: %w", err)
	}
	run := RotationRun{ID: hex.EncodeToString(id[:]), Why: why, By: by.changedBy(), Started: s.Clock()}
	if by.Term != nil {
		run.Epoch = by.Term.Epoch
	}
	err := s.change(ctx, by, Key{Pause: true}, func(state State) (Outcome, error) {
		if state.Pause != nil && !evenPaused {
			return Outcome{}, state.Pause.refusal()
		}
		d := by.draft(ActionRunRotation, "", runObject(run.ID))
		d.fact("status", "", "begun")
		d.fact("why", "", why)
		if state.Pause != nil {
			d.fact("even_paused", "", "true")
		}
		return s.entered(Outcome{Run: &run}, d, audit.Done, nil)
	})
	if err != nil {
		return nil, fmt.Errorf("beginning a run of rotations: %w", err)
	}
	return &run, nil
}

// EndRun notes what came of a run; also of one that somebody else began, whose process
// is gone.
func (s *Service) EndRun(ctx context.Context, by Operator, id string, result RunResult) (*RotationRun, error) {
	result.Failures = result.Failures[:min(len(result.Failures), MaxRunFailures)]
	var ended RotationRun
	// A pause ends no run that is under way: what it did is noted.
	err := s.decide(ctx, Key{Run: id, Term: by.Term}, func(state State) (Outcome, error) {
		switch {
		case state.Run == nil:
			return Outcome{}, &NotFoundError{"run", id}
		case state.Run.Outcome != "":
			return Outcome{}, disallow("that run has ended")
		}
		ended = *state.Run
		ended.Ended, ended.RunResult = s.Clock(), result
		d := by.draft(ActionRunRotation, "", runObject(id))
		d.fact("status", "begun", string(result.Outcome))
		d.fact("done", "", strconv.Itoa(result.Done))
		d.fact("refused", "", strconv.Itoa(result.Refused))
		d.fact("failed", "", strconv.Itoa(result.Failed))
		return s.entered(Outcome{Run: &ended}, d, audit.Done, nil)
	})
	if err != nil {
		return nil, fmt.Errorf("ending run %s of rotations: %w", id, err)
	}
	return &ended, nil
}

func runObject(id string) string { return "rotation-run/" + id }
