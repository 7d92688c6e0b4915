package sqlite_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/store/sqlite"
	"keywright.dev/kms/store/storetest"
)

// The tests run their own binary as a child, which does the work of a role
// until it is killed, and writes a line for each thing that was acknowledged.
const (
	roleVariable = "STORE_TEST_ROLE"
	pathVariable = "STORE_TEST_PATH"
)

func TestMain(m *testing.M) {
	role, ok := roles()[os.Getenv(roleVariable)]
	if !ok {
		os.Exit(m.Run())
	}
	if err := role(os.Getenv(pathVariable)); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

func roles() map[string]func(path string) error {
	return map[string]func(string) error{
		"boots": boots, "backups": backups, "restores": restores, "creations": creations,
		"failures": failures, "leads": leads,
	}
}

// killAtRandom runs a child and kills it after a random time of at most most.
// It returns the lines that the child wrote.
func killAtRandom(t *testing.T, role, path string, most time.Duration) []string {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), roleVariable+"="+role, pathVariable+"="+path)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	// The time counts from the first line: a busy machine starts slowly.
	reader := bufio.NewReader(out)
	first, err := reader.ReadString('\n')
	require.NoError(t, err)
	time.AfterFunc(rand.N(most), func() { _ = child.Process.Kill() })
	rest, err := io.ReadAll(reader)
	require.NoError(t, err)
	require.Error(t, child.Wait(), "it was killed")
	lines := strings.SplitAfter(first+string(rest), "\n")
	lines = lines[:len(lines)-1] // what follows the last newline was cut off
	for _, line := range lines {
		require.NotContains(t, line, "error:")
	}
	return lines
}

// killAfter runs a child until it writes a line, and kills it then. It returns the
// lines before.
func killAfter(t *testing.T, role, path, last string) []string {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), roleVariable+"="+role, pathVariable+"="+path)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	defer func() { require.Error(t, child.Wait(), "it was killed") }()
	defer func() { _ = child.Process.Kill() }()
	var lines []string
	for reader := bufio.NewReader(out); ; {
		line, err := reader.ReadString('\n')
		require.NoError(t, err)
		if line == last {
			return lines
		}
		require.NotContains(t, line, "error:")
		lines = append(lines, line)
	}
}

// lastAcknowledged reads lines of a worker and a number, and returns the
// highest number of each worker.
func lastAcknowledged(t *testing.T, lines []string) map[int]uint64 {
	t.Helper()
	last := make(map[int]uint64)
	for _, line := range lines {
		var worker int
		var n uint64
		_, err := fmt.Sscanf(line, "%d %d\n", &worker, &n)
		require.NoError(t, err, line)
		last[worker] = max(last[worker], n)
	}
	return last
}

// workers change one machine each, all at once.
const workers = 16

// requireWhole demands that every change is there wholly or not at all, and
// that the audit log's tree is the one that was signed. It returns how many
// changes of each worker there are.
func requireWhole(t *testing.T, s *sqlite.Store) map[int]uint64 {
	t.Helper()
	ctx := context.Background()
	changes := make(map[int]uint64)
	var total int
	for w := range workers {
		m, err := s.Machine(ctx, storetest.MachineID(w))
		if err != nil {
			require.ErrorIs(t, err, kms.ErrNotFound)
			continue
		}
		n := m.Counters.Clock
		changes[w], total = n, total+int(n)
		entries, err := s.LatestEntries(ctx, m.ID, "", int(n)+10)
		require.NoError(t, err)
		require.Len(t, entries, int(n), "one entry for each change of worker %d", w)
		requireRedeemed(t, s, w, n)
	}
	counts, err := s.Counts(ctx)
	require.NoError(t, err)
	require.Equal(t, int64(total), counts.Entries)
	require.Equal(t, int64(2*len(changes)), counts.Volumes)
	storetest.RequireLog(t, s, storetest.NewSigner(t))
	return changes
}

// requireRedeemed looks at the newest challenges only: each round looks at its own.
func requireRedeemed(t *testing.T, s *sqlite.Store, worker int, n uint64) {
	t.Helper()
	for i := n + 1; i > 0 && i+50 > n; i-- {
		challenge := workerChallenge(worker, i)
		require.NoError(t, s.Transact(context.Background(), kms.Key{Challenge: &challenge}, func(state kms.State) (kms.Outcome, error) {
			require.Equal(t, i <= n, state.Redeemed, "challenge %d of worker %d, which made %d changes", i, worker, n)
			return kms.Outcome{}, nil
		}))
	}
}

// requireIntact checks the file as a backup is checked.
func requireIntact(t *testing.T, s *sqlite.Store) {
	t.Helper()
	require.NoError(t, s.Backup(context.Background(), filepath.Join(t.TempDir(), "checked.db")))
}

func TestKilledUnderLoad(t *testing.T) { killedUnderLoad(t, 8) }

// killedUnderLoad: nothing acknowledged is lost, nothing half-written is seen.
func killedUnderLoad(t *testing.T, rounds int) {
	path := storePath(t)
	known := make(map[int]uint64)
	for round := range rounds {
		acknowledged := lastAcknowledged(t, killAtRandom(t, "boots", path, 300*time.Millisecond))
		s, err := sqlite.Open(context.Background(), sqlite.Config{Path: path})
		require.NoError(t, err)
		changes := requireWhole(t, s)
		requireIntact(t, s)
		require.NoError(t, s.Close())
		for w := range workers {
			atLeast := max(known[w], acknowledged[w])
			assert.GreaterOrEqual(t, changes[w], atLeast, "round %d: acknowledged to worker %d", round, w)
			if acknowledged[w] > 0 {
				assert.LessOrEqual(t, changes[w], atLeast+1, "round %d: worker %d has one change under way", round, w)
			}
		}
		known = changes
	}
	require.NotEmpty(t, known)
	t.Logf("changes of each worker: %v", known)
}

// A disk that fails stops the store; opened anew, it holds all that was
// acknowledged, and what was not wholly or not at all.
func TestDiskFailsUnderLoad(t *testing.T) {
	path := storePath(t)
	acknowledged := lastAcknowledged(t, killAfter(t, "failures", path, "failed\n"))
	changes := requireWhole(t, open(t, path))
	for w := range workers {
		assert.GreaterOrEqual(t, changes[w], acknowledged[w])
	}
}

func TestKilledDuringBackup(t *testing.T) { killedDuringBackup(t, 4) }

// killedDuringBackup: what has a backup's name is whole, under load too.
func killedDuringBackup(t *testing.T, rounds int) {
	for range rounds {
		path := storePath(t)
		lines := killAtRandom(t, "backups", path, 500*time.Millisecond)
		found, err := filepath.Glob(path + ".backup-*[0-9]")
		require.NoError(t, err)
		require.GreaterOrEqual(t, len(found), len(lines), "acknowledged backups are there")
		for _, backup := range found {
			requireWhole(t, restored(t, backup))
		}
		requireWhole(t, open(t, path))
	}
}

func restored(t *testing.T, backup string) *sqlite.Store {
	t.Helper()
	path := storePath(t)
	_, err := sqlite.Restore(context.Background(), sqlite.Restoration{From: backup, Path: path})
	require.NoError(t, err)
	return open(t, path)
}

func TestKilledDuringRestore(t *testing.T) { killedDuringRestore(t, 8) }

// killedDuringRestore: there is the old store or the new one.
func killedDuringRestore(t *testing.T, rounds int) {
	path := storePath(t)
	for n := range 2 {
		backupOf(t, n, path+fmt.Sprintf(".backup-%d", n))
	}
	for range rounds {
		acknowledged := lastAcknowledged(t, killAtRandom(t, "restores", path, 150*time.Millisecond))
		s, err := sqlite.Open(context.Background(), sqlite.Config{Path: path})
		require.NoError(t, err)
		found, err := s.Machines(context.Background(), kms.MachineFilter{}, "", 10)
		require.NoError(t, err)
		requireIntact(t, s)
		require.NoError(t, s.Close())
		require.Len(t, found, 1)
		last := int(acknowledged[0])
		assert.Contains(t, []string{storetest.MachineID(last % 2), storetest.MachineID((last + 1) % 2)}, found[0].ID)
	}
}

// backupOf makes a backup of a store that holds machine n.
func backupOf(t *testing.T, n int, path string) {
	t.Helper()
	s := open(t, storePath(t))
	require.NoError(t, transact(s, kms.Key{}, kms.Outcome{Machine: storetest.NewMachine(n)}))
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, s.Backup(context.Background(), path))
}

func TestKilledDuringCreation(t *testing.T) { killedDuringCreation(t, 6) }

// killedDuringCreation: a store that was being made or migrated opens.
func killedDuringCreation(t *testing.T, rounds int) {
	for range rounds {
		dir := t.TempDir()
		killAtRandom(t, "creations", dir, 200*time.Millisecond)
		found, err := filepath.Glob(filepath.Join(dir, "*", "store.db"))
		require.NoError(t, err)
		require.NotEmpty(t, found)
		for _, path := range found {
			require.NoError(t, transact(open(t, path), kms.Key{}, kms.Outcome{Machine: storetest.NewMachine(1)}))
		}
	}
}
