package sqlite

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	driver "modernc.org/sqlite"

	"keywright.dev/kms"
)

func openStore(t *testing.T) *Store {
	t.Helper()
	s, err := Open(context.Background(), Config{Path: filepath.Join(t.TempDir(), "store.db")})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Close()) })
	return s
}

func machine(id string) kms.Outcome {
	return kms.Outcome{Machine: &kms.Machine{ID: id, Name: id, AKName: []byte(id), Status: kms.MachineActive}}
}

func put(s *Store, o kms.Outcome) error {
	return s.Transact(context.Background(), kms.Key{}, func(kms.State) (kms.Outcome, error) { return o, nil })
}

func ids(t *testing.T, s *Store) (ids []string) {
	t.Helper()
	found, err := s.Machines(context.Background(), kms.MachineFilter{}, "", 1000)
	require.NoError(t, err)
	for _, m := range found {
		ids = append(ids, m.ID)
	}
	return ids
}

// grouped runs the changes as one group.
func grouped(t *testing.T, s *Store, decisions ...func(kms.State) (kms.Outcome, error)) []error {
	t.Helper()
	deciding, let := make(chan struct{}), make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		assert.NoError(t, s.Transact(context.Background(), kms.Key{}, func(kms.State) (kms.Outcome, error) {
			close(deciding)
			<-let
			return kms.Outcome{}, nil
		}))
	})
	<-deciding
	results := make([]error, len(decisions))
	for i, decide := range decisions {
		done.Go(func() { results[i] = s.Transact(context.Background(), kms.Key{Machine: "a"}, decide) })
		require.Eventually(t, func() bool { return len(s.writer.queue) == i+1 }, 10*time.Second, time.Millisecond)
	}
	close(let)
	done.Wait()
	return results
}

func decideTo(o kms.Outcome) func(kms.State) (kms.Outcome, error) {
	return func(kms.State) (kms.Outcome, error) { return o, nil }
}

// Members of a group see those before them; one that fails takes none with it.
func TestGroup(t *testing.T) {
	s := openStore(t)
	failure := errors.New("no")
	results := grouped(t, s,
		decideTo(machine("a")),
		func(state kms.State) (kms.Outcome, error) {
			assert.NotNil(t, state.Machine, "the one before is seen")
			return machine("b"), failure
		},
		decideTo(kms.Outcome{Machine: &kms.Machine{ID: "c", Name: "a", AKName: []byte("c")}}), // name taken
		decideTo(machine("d")),
	)
	assert.NoError(t, results[0])
	assert.Same(t, failure, results[1])
	assert.ErrorIs(t, results[2], kms.ErrExists)
	assert.NoError(t, results[3])
	assert.Equal(t, []string{"a", "d"}, ids(t, s))
}

// setCommits makes commits fail, or not. It may be called while the writer
// waits for a decision.
func setCommits(t *testing.T, s *Store, result int32) {
	t.Helper()
	require.NoError(t, s.writer.conn.Raw(func(c any) error {
		c.(driver.HookRegisterer).RegisterCommitHook(func() int32 { return result })
		return nil
	}))
}

// If the commit fails, everybody in the group is told, and nobody later sees
// what was not committed.
func TestCommitFails(t *testing.T) {
	for name, spoil := range map[string]func(*testing.T, *Store){
		"and ends the transaction":   func(t *testing.T, s *Store) { setCommits(t, s, 1) },
		"and leaves the transaction": deferOrphan,
	} {
		t.Run(name, func(t *testing.T) { commitFails(t, spoil) })
	}
}

// deferOrphan writes a row of nobody, which is noticed when it is committed.
func deferOrphan(t *testing.T, s *Store) {
	t.Helper()
	for _, statement := range []string{
		"PRAGMA defer_foreign_keys = 1",
		"INSERT INTO volumes (machine, id, uuid, status, size, has_foreign, copied, keyring, created, reencrypted) VALUES ('nobody', 'orphan', '', '', 0, 0, 0, '', 0, 0)",
	} {
		_, err := s.writer.conn.ExecContext(context.Background(), statement)
		require.NoError(t, err)
	}
}

func commitFails(t *testing.T, spoil func(*testing.T, *Store)) {
	s := openStore(t)
	results := grouped(t, s,
		func(kms.State) (kms.Outcome, error) {
			spoil(t, s)
			return machine("a"), nil
		},
		decideTo(machine("b")),
		func(state kms.State) (kms.Outcome, error) {
			assert.NotNil(t, state.Machine)
			return kms.Outcome{}, errors.New("decided on what was not committed")
		})
	for _, err := range results {
		assert.ErrorIs(t, err, kms.ErrUnavailable)
	}
	assert.NoError(t, s.Err(), "the disk is as it was: the next may succeed")
	setCommits(t, s, 0)
	require.NoError(t, s.Transact(context.Background(), kms.Key{Machine: "a"}, func(state kms.State) (kms.Outcome, error) {
		assert.Nil(t, state.Machine)
		return machine("c"), nil
	}))
	assert.Equal(t, []string{"c"}, ids(t, s))
}

// What finds no room fails alone, and what does is kept.
func TestDatabaseFull(t *testing.T) {
	s := openStore(t)
	require.NoError(t, put(s, machine("before")))
	_, err := s.writer.conn.ExecContext(context.Background(), "PRAGMA max_page_count = 1")
	require.NoError(t, err)
	big := machine("b")
	big.Machine.EKCert = make([]byte, 1<<20)
	results := grouped(t, s, decideTo(machine("a")), decideTo(big), decideTo(machine("c")))
	assert.NoError(t, results[0])
	assert.ErrorIs(t, results[1], kms.ErrUnavailable)
	assert.NoError(t, results[2])
	assert.NoError(t, s.Err())
	assert.Equal(t, []string{"a", "before", "c"}, ids(t, s))
}

// What the disk did not take is remembered until it takes something, which a
// store that nobody changes finds out by itself.
func TestLastFailure(t *testing.T) {
	s, ctx := openStore(t), context.Background()
	require.NoError(t, put(s, machine("a")))
	require.NoError(t, s.LastFailure())
	setCommits(t, s, 1)
	require.Error(t, put(s, machine("b")))
	require.ErrorIs(t, s.LastFailure(), kms.ErrUnavailable)
	require.Error(t, s.TryWriting(ctx))
	setCommits(t, s, 0)
	no := errors.New("no")
	require.ErrorIs(t, s.Transact(ctx, kms.Key{}, func(kms.State) (kms.Outcome, error) { return kms.Outcome{}, no }), no)
	require.Error(t, s.LastFailure(), "that was never for the disk")
	before := walSize(t, s)
	require.NoError(t, s.TryWriting(ctx))
	assert.Greater(t, walSize(t, s), before, "it did write")
	assert.NoError(t, s.LastFailure())
	assert.NoError(t, put(s, machine("b")))
	require.Error(t, s.writer.giveUp("committing", errors.New("input/output error")))
	require.Error(t, put(s, machine("c")))
	assert.Error(t, s.LastFailure(), "it takes no more")
}

func walSize(t *testing.T, s *Store) int64 {
	t.Helper()
	info, err := os.Stat(s.path + walSuffix)
	require.NoError(t, err)
	return info.Size()
}

// Some errors undo the whole transaction. Then nothing that follows in the
// group is carried out outside of one.
func TestTransactionLost(t *testing.T) {
	s := openStore(t)
	results := grouped(t, s,
		decideTo(machine("a")),
		func(kms.State) (kms.Outcome, error) {
			return kms.Outcome{}, errors.Join(errors.New("SQLite gave up"), s.writer.control.rollback())
		},
		decideTo(machine("c")))
	for _, err := range results {
		assert.ErrorIs(t, err, kms.ErrUnavailable)
	}
	assert.Empty(t, ids(t, s))
}

// A disk that fails is not written to again: what it holds is not known.
func TestDiskFails(t *testing.T) {
	s := openStore(t)
	failure := errors.New("input/output error")
	assert.ErrorIs(t, s.writer.giveUp("committing", failure), kms.ErrUnavailable)
	assert.ErrorIs(t, s.Err(), failure)
	err := put(s, machine("a"))
	assert.ErrorIs(t, err, kms.ErrUnavailable)
	assert.ErrorIs(t, err, failure)
	assert.Empty(t, ids(t, s))
}

// More callers than may wait are let in one after the other.
func TestManyWait(t *testing.T) {
	s := openStore(t)
	var done sync.WaitGroup
	for range maxWaiting + 2*maxGroup {
		done.Go(func() { assert.NoError(t, put(s, kms.Outcome{})) })
	}
	done.Wait()
}

func TestPragmas(t *testing.T) {
	s := openStore(t)
	for pragma, want := range map[string]string{
		"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "trusted_schema": "0",
	} {
		var got string
		require.NoError(t, s.writer.conn.QueryRowContext(context.Background(), "PRAGMA "+pragma).Scan(&got))
		assert.Equal(t, want, got, pragma)
	}
	_, err := s.read.Exec("DELETE FROM entries")
	assert.Error(t, err, "readers can't write")
	version, err := readVersion(context.Background(), s.read)
	require.NoError(t, err)
	known, err := schemaVersion()
	require.NoError(t, err)
	assert.Equal(t, known, version.schema, "each migration sets user_version to its number")
}
