package kms

import (
	"context"
	"errors"

	"keywright.dev/kms/audit"
)

// Operator is who asks for something, in one request.
type Operator struct {
	audit.Actor
	Request  string   // request id
	Policies []string // ids of those that permitted it
	// DryRun has everything decided as it would be, and nothing changed.
	DryRun bool
	// Term is that of a server which acts by itself: once another one leads, or
	// rotations are paused, nothing of what it wants is written. nil for people.
	Term *Term
}

// draft begins an entry about what the operator did.
func (o Operator) draft(action, machine, object string) draft {
	return draft{
		action: action, machine: machine, object: object,
		actor: o.Actor, request: o.Request, policies: o.Policies,
	}
}

// errDryRun undoes a change that was decided for nobody but who asked.
var errDryRun = errors.New("a dry run changes nothing")

// change is a change that an operator wants.
func (s *Service) change(ctx context.Context, by Operator, key Key, decide func(State) (Outcome, error)) error {
	key.Term, key.Pause = by.Term, key.Pause || by.Term != nil
	err := s.decide(ctx, key, func(state State) (Outcome, error) {
		if by.Term != nil && state.Pause != nil {
			return Outcome{}, state.Pause.refusal()
		}
		outcome, err := decide(state)
		if err == nil && by.DryRun {
			err = errDryRun
		}
		return outcome, err
	})
	if errors.Is(err, errDryRun) {
		return nil
	}
	return err
}
