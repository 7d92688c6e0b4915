package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"keywright.dev/kms"
	"keywright.dev/kms/audit"
	"keywright.dev/kms/store/sqlite/sqlitedb"
)

// logPage is how many entries are read at once.
const logPage = 256

// Sequence implements [kms.Sequencer]. Entries and hashes only ever grow, so it
// reads and builds beside the writer, over entries that are durable, and
// stores what was built if the tree still is where it was.
func (s *Store) Sequence(
	ctx context.Context, limit int, build func([]byte, audit.HashReader, []audit.Hash) (kms.Sequenced, error),
) (int, error) {
	release, err := acquire(ctx, s.sequencing)
	if err != nil {
		return 0, err
	}
	defer release()
	var w waiting
	if err := s.snapshot(ctx, func(rows *sqlitedb.Queries) error {
		return w.read(ctx, rows, limit, build)
	}); err != nil || len(w.leaves) == 0 {
		return 0, err
	}
	if err := s.writer.write(ctx, w.store); err != nil {
		return 0, fmt.Errorf("extending the audit log's tree: %w", err)
	}
	return len(w.leaves), nil
}

// waiting are the entries that the tree does not hold yet.
type waiting struct {
	size   int64 // of the tree before
	leaves []audit.Hash
	built  kms.Sequenced
}

func (w *waiting) read(
	ctx context.Context, rows *sqlitedb.Queries, limit int,
	build func([]byte, audit.HashReader, []audit.Hash) (kms.Sequenced, error),
) error {
	head, err := rows.Head(ctx)
	if err != nil {
		return fmt.Errorf("reading the audit log's head: %w", err)
	}
	w.size = head.Size
	entries, err := readEntries(ctx, rows, head.Size, limit)
	if err != nil || len(entries) == 0 {
		return err
	}
	w.leaves = each(entries, func(e sqlitedb.Entry) audit.Hash { return tlog.RecordHash(e.Signed) })
	w.built, err = build(head.Head, treeHashes(ctx, rows), w.leaves)
	if err != nil {
		return err
	}
	return w.check()
}

// readEntries reads the entries from leaf index from on, at most limit. The
// database's owner may have deleted some.
func readEntries(ctx context.Context, rows *sqlitedb.Queries, from int64, limit int) ([]sqlitedb.Entry, error) {
	entries, err := rows.EntriesAfter(ctx, sqlitedb.EntriesAfterParams{After: from, Most: most(limit)})
	if err != nil {
		return nil, fmt.Errorf("reading the audit log: %w", err)
	}
	for i, e := range entries {
		if e.Seq != from+int64(i)+1 {
			return nil, fmt.Errorf("reading the audit log: entry %d is missing", from+int64(i))
		}
	}
	return entries, nil
}

// check holds what was built against what it was built of.
func (w *waiting) check() error {
	a, after := w.built.Appended, w.size+int64(len(w.leaves))
	start := tlog.StoredHashCount(w.size)
	if a.Start != start || a.Tree.N != after || int64(len(a.Hashes)) != tlog.StoredHashCount(after)-start ||
		len(w.built.Head) == 0 {
		return fmt.Errorf("extending the audit log's tree from %d by %d: what was built does not fit", w.size, len(w.leaves))
	}
	return nil
}

func (w *waiting) store(rows *sqlitedb.Queries) error {
	ctx := context.Background()
	for i, hash := range w.built.Appended.Hashes {
		place := w.built.Appended.Start + int64(i)
		if err := rows.AddTreeHash(ctx, sqlitedb.AddTreeHashParams{Place: place, Hash: hash[:]}); err != nil {
			return err
		}
	}
	moved, err := rows.MoveHead(ctx, sqlitedb.MoveHeadParams{
		Before: w.size, Size: w.built.Appended.Tree.N, Head: w.built.Head,
	})
	if err == nil && moved != 1 {
		err = fmt.Errorf("the tree is no longer of size %d", w.size)
	}
	return err
}

// treeHashes reads hashes by storage index.
func treeHashes(ctx context.Context, rows *sqlitedb.Queries) audit.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]audit.Hash, error) {
		hashes := make([]audit.Hash, len(indexes))
		for i, place := range indexes {
			hash, err := rows.TreeHash(ctx, place)
			switch {
			case errors.Is(err, sql.ErrNoRows):
				return nil, fmt.Errorf("reading the audit log's tree: hash %d is missing", place)
			case err != nil:
				return nil, fmt.Errorf("reading the audit log's tree: %w", err)
			}
			hashes[i] = digest(hash)
		}
		return hashes, nil
	})
}

// Head implements [kms.LogReader].
func (s *Store) Head(ctx context.Context) (head []byte, size int64, err error) {
	row, err := s.rows.Head(ctx)
	if err != nil {
		return nil, 0, fmt.Errorf("reading the audit log's head: %w", err)
	}
	return row.Head, row.Size, nil
}

// TreeHashes implements [kms.LogReader].
func (s *Store) TreeHashes(ctx context.Context) audit.HashReader { return treeHashes(ctx, s.rows) }

// SequencedEntries implements [kms.LogReader]. It refuses a range that reaches
// beyond the tree, and reads in pages, so that a slow each holds nothing.
func (s *Store) SequencedEntries(
	ctx context.Context, from, to int64, each func(index int64, signed []byte, leaf audit.Hash) error,
) error {
	if _, size, err := s.Head(ctx); err != nil {
		return err
	} else if from < 0 || to > size {
		return fmt.Errorf("reading the audit log from %d to %d: its tree holds %d entries", from, to, size)
	}
	for from < to {
		entries, err := readEntries(ctx, s.rows, from, int(min(logPage, to-from)))
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			return fmt.Errorf("reading the audit log: entry %d is missing", from)
		}
		for _, e := range entries {
			if err := s.passEntry(ctx, from, e, each); err != nil {
				return err
			}
			from++
		}
	}
	return nil
}

func (s *Store) passEntry(
	ctx context.Context, index int64, e sqlitedb.Entry, each func(int64, []byte, audit.Hash) error,
) error {
	leaf, err := s.TreeHashes(ctx).ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
	if err != nil {
		return err
	}
	return each(index, e.Signed, leaf[0])
}

// LatestEntries implements [kms.LogReader].
func (s *Store) LatestEntries(ctx context.Context, machine, action string, limit int) (found []kms.FoundEntry, err error) {
	err = s.snapshot(ctx, func(rows *sqlitedb.Queries) error {
		head, err := rows.Head(ctx)
		if err != nil {
			return err
		}
		entries, err := latest(ctx, rows, machine, action, most(limit))
		found = each(entries, func(e sqlitedb.Entry) kms.FoundEntry {
			index := e.Seq - 1
			if index >= head.Size {
				index = -1
			}
			return kms.FoundEntry{Index: index, Signed: e.Signed}
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the newest audit entries: %w", err)
	}
	return found, nil
}

func latest(ctx context.Context, rows *sqlitedb.Queries, machine, action string, limit int64) ([]sqlitedb.Entry, error) {
	switch {
	case machine != "" && action != "":
		return rows.LatestEntriesOfMachineAndAction(ctx, sqlitedb.LatestEntriesOfMachineAndActionParams{
			Machine: machine, Action: action, Limit: limit,
		})
	case machine != "":
		return rows.LatestEntriesOfMachine(ctx, sqlitedb.LatestEntriesOfMachineParams{Machine: machine, Limit: limit})
	case action != "":
		return rows.LatestEntriesOfAction(ctx, sqlitedb.LatestEntriesOfActionParams{Action: action, Limit: limit})
	default:
		return rows.LatestEntries(ctx, limit)
	}
}
