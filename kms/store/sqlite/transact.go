package sqlite

import (
	"context"
	"errors"
	"fmt"

	"keywright.dev/kms"
	"keywright.dev/kms/store/sqlite/sqlitedb"
)

// Transact implements [kms.Transactor]. decide runs on the caller's goroutine
// while the writer waits for it: where it panics, the panic is the caller's and
// the change is undone. It runs once.
func (s *Store) Transact(ctx context.Context, key kms.Key, decide func(kms.State) (kms.Outcome, error)) error {
	c := &change{calls: make(chan func()), done: make(chan error, 1)}
	c.apply = func(rows *sqlitedb.Queries) error {
		return apply(rows, key, func(state kms.State) (kms.Outcome, error) {
			return c.decide(decide, state)
		})
	}
	return s.writer.submit(ctx, c)
}

// errUndecided is never seen by a caller: its goroutine is unwinding.
var errUndecided = errors.New("the decision did not return")

// decide has the caller's goroutine run decide.
func (c *change) decide(decide func(kms.State) (kms.Outcome, error), state kms.State) (kms.Outcome, error) {
	var outcome kms.Outcome
	err := errUndecided
	returned := make(chan struct{})
	c.calls <- func() {
		defer close(returned)
		outcome, err = decide(state)
	}
	<-returned
	return outcome, err
}

// apply is one transaction of package kms, within a savepoint.
func apply(rows *sqlitedb.Queries, key kms.Key, decide func(kms.State) (kms.Outcome, error)) error {
	l := loader{rows: rows, ctx: context.Background()}
	if err := l.fence(key.Term); err != nil {
		return fmt.Errorf("reading who leads: %w", err)
	}
	if err := l.load(key); err != nil {
		return fmt.Errorf("reading the rows of a decision: %w", err)
	}
	outcome, err := decide(l.state)
	if err != nil {
		return err
	}
	p := putter{rows: rows, ctx: context.Background(), loaded: l.machine}
	if err := p.put(outcome); err != nil {
		return fmt.Errorf("writing the rows of a decision: %w", err)
	}
	return nil
}
