package sqlite

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"keywright.dev/kms"
	"keywright.dev/kms/store/sqlite/sqlitedb"
)

// timeSize is the length of a time in a list of them, which compare as bytes do.
const timeSize = 8

func fromTimes(list []time.Time) (b []byte) {
	for _, t := range list {
		b = binary.BigEndian.AppendUint64(b, uint64(fromTime(t)))
	}
	return b
}

func toTimes(b []byte) (list []time.Time) {
	for ; len(b) >= timeSize; b = b[timeSize:] {
		list = append(list, toTime(int64(binary.BigEndian.Uint64(b))))
	}
	return list
}

// MeasurementGroups implements [kms.Reader].
func (s *Store) MeasurementGroups(ctx context.Context) ([]string, error) {
	groups, err := s.rows.MeasurementGroups(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing groups with approved measurements: %w", err)
	}
	return groups, nil
}

// OldestApproved implements [kms.Reader].
func (s *Store) OldestApproved(ctx context.Context, group string, limit int) ([]kms.Measurement, error) {
	rows, err := s.rows.OldestApproved(ctx, sqlitedb.OldestApprovedParams{InGroup: group, Limit: most(limit)})
	if err != nil {
		return nil, fmt.Errorf("listing approved measurements: %w", err)
	}
	return each(rows, toMeasurement), nil
}

// Holding implements [kms.Reader].
func (s *Store) Holding(ctx context.Context, h kms.Hold) (holding kms.Holding, err error) {
	err = s.snapshot(ctx, func(rows *sqlitedb.Queries) error {
		holding, err = readHolding(ctx, rows, h)
		return err
	})
	if err != nil {
		return kms.Holding{}, fmt.Errorf("reading what holds a measurement: %w", err)
	}
	return holding, nil
}

func readHolding(ctx context.Context, rows *sqlitedb.Queries, h kms.Hold) (kms.Holding, error) {
	active, err := rows.HasActiveMachine(ctx, h.Group)
	if err != nil {
		return kms.Holding{}, err
	}
	machines, err := rows.HoldingMachines(ctx, sqlitedb.HoldingMachinesParams{
		InGroup: h.Group, Digest: h.Digest[:], Until: int64(h.Boots * timeSize), Approved: fromTimes([]time.Time{h.Approved}), Most: most(h.Limit),
	})
	return kms.Holding{Active: active, Machines: machines}, err
}

func (l *loader) loadHolding(key kms.Key) (err error) {
	if key.Hold != nil {
		l.state.Holding, err = readHolding(l.ctx, l.rows, *key.Hold)
	}
	return err
}
