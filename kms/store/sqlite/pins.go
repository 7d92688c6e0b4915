package sqlite

import (
	"context"
	"crypto/sha256"
	"fmt"

	"keywright.dev/kms"
	"keywright.dev/kms/store/sqlite/sqlitedb"
)

func fromDigests(list [][32]byte) (b []byte) {
	for _, d := range list {
		b = append(b, d[:]...)
	}
	return b
}

func toDigests(b []byte) (list [][32]byte) {
	for ; len(b) >= sha256.Size; b = b[sha256.Size:] {
		list = append(list, [32]byte(b[:sha256.Size]))
	}
	return list
}

// PinCounts implements [kms.Reader].
func (s *Store) PinCounts(ctx context.Context) ([]kms.PinCount, error) {
	rows, err := s.rows.CountPins(ctx)
	if err != nil {
		return nil, fmt.Errorf("counting machines by what they pin: %w", err)
	}
	return each(rows, func(r sqlitedb.CountPinsRow) kms.PinCount {
		return kms.PinCount{Pins: toDigests(r.Pins), Machines: r.N}
	}), nil
}

// MachinesLacking implements [kms.Reader].
func (s *Store) MachinesLacking(ctx context.Context, l kms.Lacking, after string) ([]string, error) {
	return readLacking(ctx, s.rows, l, after)
}

func readLacking(ctx context.Context, rows *sqlitedb.Queries, l kms.Lacking, after string) ([]string, error) {
	machines, err := rows.MachinesLacking(ctx, sqlitedb.MachinesLackingParams{After: after, Pin: l.Key[:], Most: most(l.Limit)})
	if err != nil {
		return nil, fmt.Errorf("listing machines that lack a service key: %w", err)
	}
	return machines, nil
}

func (l *loader) loadLacking(key kms.Key) (err error) {
	if key.Lacking != nil {
		l.state.Lacking, err = readLacking(l.ctx, l.rows, *key.Lacking, "")
	}
	return err
}
