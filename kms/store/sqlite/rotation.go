package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"keywright.dev/kms"
	"keywright.dev/kms/store/sqlite/sqlitedb"
)

// RotationPause implements [kms.Reader].
func (s *Store) RotationPause(ctx context.Context) (*kms.RotationPause, error) {
	pause, err := rotationPause(ctx, s.rows)
	if err != nil {
		return nil, fmt.Errorf("reading whether rotations are paused: %w", err)
	}
	return pause, nil
}

func rotationPause(ctx context.Context, rows *sqlitedb.Queries) (*kms.RotationPause, error) {
	row, err := rows.RotationPause(ctx)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, nil //nolint:nilnil // rotations are not held
	case err != nil:
		return nil, err
	}
	return &kms.RotationPause{Since: toTime(row.Since), By: row.By, Reason: row.Reason}, nil
}

// RotationRuns implements [kms.Reader].
func (s *Store) RotationRuns(ctx context.Context, limit int) ([]kms.RotationRun, error) {
	found, err := s.rows.RotationRuns(ctx, most(limit))
	if err != nil {
		return nil, fmt.Errorf("reading runs of rotations: %w", err)
	}
	runs := make([]kms.RotationRun, 0, len(found))
	for _, row := range found {
		run, err := toRun(row)
		if err != nil {
			return nil, err
		}
		runs = append(runs, run)
	}
	return runs, nil
}

// fence refuses what a leader of the past wants.
func (l *loader) fence(t *kms.Term) error {
	if t == nil {
		return nil
	}
	row, err := l.rows.Leader(l.ctx, t.Name)
	switch {
	case err != nil && !errors.Is(err, sql.ErrNoRows):
		return err
	case err != nil || uint64(row.Epoch) != t.Epoch:
		return kms.ErrDeposed
	}
	return nil
}

func (l *loader) loadRotation(key kms.Key) (err error) {
	if key.Leader != "" {
		if err := l.loadLeader(key.Leader); err != nil {
			return err
		}
	}
	if key.Pause {
		if l.state.Pause, err = rotationPause(l.ctx, l.rows); err != nil {
			return err
		}
	}
	if key.Run == "" {
		return nil
	}
	row, err := l.rows.RotationRun(l.ctx, key.Run)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return err
	}
	run, err := toRun(row)
	l.state.Run = &run
	return err
}

func (l *loader) loadLeader(name string) error {
	row, err := l.rows.Leader(l.ctx, name)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return err
	}
	l.state.Leader = &kms.Leadership{Name: row.Name, Epoch: uint64(row.Epoch), Holder: row.Holder, Renewals: uint64(row.Renewals)}
	return nil
}

func (p *putter) putRotation(o kms.Outcome) error {
	if lead := o.Leader; lead != nil {
		row := sqlitedb.PutLeaderParams{Name: lead.Name, Epoch: int64(lead.Epoch), Holder: lead.Holder, Renewals: int64(lead.Renewals)}
		if err := p.rows.PutLeader(p.ctx, row); err != nil {
			return fmt.Errorf("the leader of %s: %w", lead.Name, translate(err))
		}
	}
	if err := p.putPause(o); err != nil {
		return fmt.Errorf("the pause of rotations: %w", translate(err))
	}
	if o.Run == nil {
		return nil
	}
	if err := p.putRun(*o.Run); err != nil {
		return fmt.Errorf("run %s of rotations: %w", o.Run.ID, translate(err))
	}
	return nil
}

func (p *putter) putPause(o kms.Outcome) error {
	if o.Resume {
		return p.rows.DropRotationPause(p.ctx)
	}
	if o.Pause == nil {
		return nil
	}
	return p.rows.PutRotationPause(p.ctx, sqlitedb.PutRotationPauseParams{Since: fromTime(o.Pause.Since), By: o.Pause.By, Reason: o.Pause.Reason})
}

func (p *putter) putRun(r kms.RotationRun) error {
	failures, err := json.Marshal(r.Failures)
	if err != nil {
		return err
	}
	err = p.rows.PutRotationRun(p.ctx, sqlitedb.PutRotationRunParams{
		ID: r.ID, Why: r.Why, By: r.By, Epoch: int64(r.Epoch), Started: fromTime(r.Started), Ended: fromTime(r.Ended),
		Outcome: string(r.Outcome), Done: int64(r.Done), Refused: int64(r.Refused), Failed: int64(r.Failed), Failures: string(failures),
	})
	if err != nil {
		return err
	}
	return p.rows.PruneRotationRuns(p.ctx, kms.MaxRotationRuns)
}

func toRun(r sqlitedb.RotationRun) (kms.RotationRun, error) {
	run := kms.RotationRun{
		ID: r.ID, Why: r.Why, By: r.By, Epoch: uint64(r.Epoch), Started: toTime(r.Started), Ended: toTime(r.Ended),
		RunResult: kms.RunResult{Outcome: kms.RunOutcome(r.Outcome), Done: int(r.Done), Refused: int(r.Refused), Failed: int(r.Failed)},
	}
	if err := json.Unmarshal([]byte(r.Failures), &run.Failures); err != nil {
		return run, fmt.Errorf("failures of run %s of rotations: %w", r.ID, err)
	}
	return run, nil
}
