package sqlite_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/store/sqlite"
	"keywright.dev/kms/store/storetest"
)

// filled is a store with a machine, keys, and an audit log of three entries of
// which two are in the tree.
func filled(t *testing.T) *sqlite.Store {
	t.Helper()
	s, ctx := open(t, storePath(t)), context.Background()
	o := enrolled(1)
	for n := range 3 {
		o.Entries = append(o.Entries, storetest.NewEntry(t, storetest.NewSigner(t), o.Machine.ID, "boot.release", n))
	}
	require.NoError(t, transact(s, kms.Key{}, o))
	_, err := s.Sequence(ctx, 2, storetest.Extend(storetest.NewSigner(t)))
	require.NoError(t, err)
	require.NoError(t, s.AddKeys(ctx,
		[]kms.KeyringVersion{{Keyring: "system", Version: 1, Status: kms.KeyringEnabled, Created: storetest.Epoch()}},
		[]kms.ServiceKey{
			{Kind: kms.ServiceKeyChallenge, ID: "c", KeyringVersion: 1, Wrapped: "w", Created: storetest.Epoch()},
			{Kind: kms.ServiceKeyLog, ID: "l", KeyringVersion: 1, Wrapped: "w", Created: storetest.Epoch()},
		}, nil))
	return s
}

func backedUp(t *testing.T, s *sqlite.Store) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "backup.db")
	require.NoError(t, s.Backup(context.Background(), path))
	return path
}

func TestBackupAndRestore(t *testing.T) {
	s, ctx := filled(t), context.Background()
	backup := backedUp(t, s)
	require.NoError(t, transact(s, kms.Key{}, enrolled(2)), "after the backup")

	path := storePath(t)
	replaced, err := sqlite.Restore(ctx, sqlite.Restoration{From: backup, Path: path})
	require.NoError(t, err)
	assert.Empty(t, replaced)
	r := open(t, path)
	found, err := r.Machines(ctx, kms.MachineFilter{}, "", 10)
	require.NoError(t, err)
	assert.Equal(t, []kms.Machine{*storetest.NewMachine(1)}, found)
	storetest.RequireLog(t, r, storetest.NewSigner(t))
	counts, err := r.Counts(ctx)
	require.NoError(t, err)
	assert.Equal(t, int64(3), counts.Entries)
}

// A challenge that was redeemed after the backup must not be accepted again.
func TestRestoreForgetsChallengeKeys(t *testing.T) {
	s, ctx := filled(t), context.Background()
	backup := backedUp(t, s)
	for name, r := range map[string]*sqlite.Store{"restored": restored(t, backup), "copied by hand": open(t, backup)} {
		keys, err := r.ServiceKeys(ctx)
		require.NoError(t, err)
		require.Len(t, keys, 1, name)
		assert.Equal(t, kms.ServiceKeyLog, keys[0].Kind, name)
	}
	keys, err := s.ServiceKeys(ctx)
	require.NoError(t, err)
	assert.Len(t, keys, 2, "the running store keeps its own")
}

func TestBackupReplacesNothing(t *testing.T) {
	s := filled(t)
	backup := backedUp(t, s)
	assert.ErrorIs(t, s.Backup(context.Background(), backup), kms.ErrExists)
	require.NoError(t, os.WriteFile(backup+"2.partial", []byte("left by a crash"), 0o600))
	require.NoError(t, s.Backup(context.Background(), backup+"2"))
	left, err := filepath.Glob(backup + "*partial*")
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestRestoreReplacesOnlyIfTold(t *testing.T) {
	ctx := context.Background()
	backup := backedUp(t, filled(t))
	path := storePath(t)
	s, err := sqlite.Open(ctx, sqlite.Config{Path: path})
	require.NoError(t, err)
	require.NoError(t, storetest.AddKeyring(s))
	require.NoError(t, transact(s, kms.Key{}, enrolled(7)))
	require.NoError(t, s.Close())

	_, err = sqlite.Restore(ctx, sqlite.Restoration{From: backup, Path: path})
	require.ErrorIs(t, err, kms.ErrExists)
	replaced, err := sqlite.Restore(ctx, sqlite.Restoration{From: backup, Path: path, Replace: true})
	require.NoError(t, err)
	_, err = open(t, path).Machine(ctx, storetest.MachineID(1))
	require.NoError(t, err)
	_, err = open(t, replaced).Machine(ctx, storetest.MachineID(7))
	assert.NoError(t, err, "the old store is kept")
}

// Each store that a restore replaced stays as it was.
func TestRestoreKeepsEveryStoreThatItReplaced(t *testing.T) {
	ctx := context.Background()
	backup, path := backedUp(t, filled(t)), storePath(t)
	_, err := sqlite.Restore(ctx, sqlite.Restoration{From: backup, Path: path})
	require.NoError(t, err)
	var kept []string
	for n := range 11 {
		s, err := sqlite.Open(ctx, sqlite.Config{Path: path})
		require.NoError(t, err)
		require.NoError(t, transact(s, kms.Key{}, enrolled(20+n)))
		require.NoError(t, s.Close())
		replaced, err := sqlite.Restore(ctx, sqlite.Restoration{From: backup, Path: path, Replace: true})
		require.NoError(t, err)
		kept = append(kept, replaced)
	}
	for n, replaced := range kept {
		_, err := open(t, replaced).Machine(ctx, storetest.MachineID(20+n))
		assert.NoError(t, err, replaced)
	}
}

// A write-ahead log without its database is kept, and never beside a store that
// an earlier restore replaced.
func TestRestoreOverALogAlone(t *testing.T) {
	ctx := context.Background()
	backup, path := backedUp(t, filled(t)), storePath(t)
	_, err := sqlite.Restore(ctx, sqlite.Restoration{From: backup, Path: path})
	require.NoError(t, err)
	replaced, err := sqlite.Restore(ctx, sqlite.Restoration{From: backup, Path: path, Replace: true})
	require.NoError(t, err)
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.WriteFile(path+"-wal", []byte("a log"), 0o600))
	second, err := sqlite.Restore(ctx, sqlite.Restoration{From: backup, Path: path})
	require.NoError(t, err)
	assert.Empty(t, second, "there was no store")
	assert.NoFileExists(t, replaced+"-wal")
	left, err := os.ReadFile(path + ".replaced-2-wal-alone")
	require.NoError(t, err)
	assert.Equal(t, "a log", string(left))
}

// The write-ahead log of a store that was killed is not taken for that of the
// store restored in its place, and stays with the old one.
func TestRestoreOverKilledStore(t *testing.T) {
	backup := backedUp(t, filled(t))
	path := storePath(t)
	acknowledged := lastAcknowledged(t, killAtRandom(t, "boots", path, 1))
	replaced, err := sqlite.Restore(context.Background(), sqlite.Restoration{From: backup, Path: path, Replace: true})
	require.NoError(t, err)
	s := open(t, path)
	counts, err := s.Counts(context.Background())
	require.NoError(t, err)
	assert.Equal(t, map[kms.MachineStatus]int64{kms.MachineActive: 1}, counts.Machines)
	assert.Equal(t, int64(3), counts.Entries)
	storetest.RequireLog(t, s, storetest.NewSigner(t))
	requireIntact(t, s)
	changes := requireWhole(t, open(t, replaced))
	for w, n := range acknowledged {
		assert.GreaterOrEqual(t, changes[w], n)
	}
}

// A restore that was killed after its first, second, or third step is
// completed by the next Open.
func TestOpenCompletesRestore(t *testing.T) {
	moves := []string{"", "-wal"} // the old store's files, in the order of restoring
	for moved := range len(moves) + 1 {
		path := storePath(t)
		acknowledged := lastAcknowledged(t, killAtRandom(t, "boots", path, 1))
		require.NoError(t, os.Rename(backedUp(t, filled(t)), path+".restoring"))
		for _, suffix := range moves[:moved] {
			require.NoError(t, os.Rename(path+suffix, path+".replaced-1"+suffix))
		}
		require.NoError(t, os.WriteFile(path+".restoring.partial", []byte("left by another"), 0o600))

		counts, err := open(t, path).Counts(context.Background())
		require.NoError(t, err)
		assert.Equal(t, int64(3), counts.Entries, "the restored store is there")
		changes := requireWhole(t, open(t, path+".replaced-1"))
		for w, n := range acknowledged {
			assert.GreaterOrEqual(t, changes[w], n)
		}
		left, err := filepath.Glob(path + ".restoring*")
		require.NoError(t, err)
		assert.Empty(t, left)
	}
}

func TestRestoreRefusesDamage(t *testing.T) {
	backup := backedUp(t, filled(t))
	whole, err := os.ReadFile(backup)
	require.NoError(t, err)
	damage := map[string]func(path string){
		"flipped": func(path string) {
			broken := append([]byte(nil), whole...)
			for i := 4096 + 8; i < len(broken); i += 4096 {
				broken[i] ^= 0xff
			}
			require.NoError(t, os.WriteFile(path, broken, 0o600))
		},
		"cut off":             func(path string) { require.NoError(t, os.WriteFile(path, whole[:len(whole)/2], 0o600)) },
		"empty":               func(path string) { require.NoError(t, os.WriteFile(path, nil, 0o600)) },
		"entry missing":       func(path string) { edit(t, path, "DELETE FROM entries WHERE seq = 2") },
		"newest entries gone": func(path string) { edit(t, path, "DELETE FROM entries WHERE seq > 1") },
		"hash missing":        func(path string) { edit(t, path, "DELETE FROM tree_hashes WHERE place = 2") },
		"secret of no volume": func(path string) { edit(t, path, "PRAGMA foreign_keys = 0; DELETE FROM volumes") },
		"another application": func(path string) { edit(t, path, "PRAGMA application_id = 1") },
		"not there":           func(path string) { require.NoError(t, os.Remove(path)) },
		"index without a row": func(path string) { edit(t, path, unindex) },
	}
	for name, spoil := range damage {
		t.Run(name, func(t *testing.T) {
			from, path := filepath.Join(t.TempDir(), "damaged.db"), storePath(t)
			require.NoError(t, os.WriteFile(from, whole, 0o600))
			spoil(from)
			_, err := sqlite.Restore(context.Background(), sqlite.Restoration{From: from, Path: path})
			require.Error(t, err)
			t.Log(err)
			left, err := filepath.Glob(path + "*")
			require.NoError(t, err)
			assert.Equal(t, []string{path + ".lock"}, left)
		})
	}
}

// unindex makes an index forget its rows.
const unindex = `PRAGMA writable_schema = 1;
UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'redemptions_keep_until')
WHERE name = 'machines_id'`

// A backup of a busy store is one moment of it, and holds nobody up.
func TestBackupUnderLoad(t *testing.T) {
	s := open(t, storePath(t))
	stop := make(chan struct{})
	var done sync.WaitGroup
	for w := range workers {
		done.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := change(s, storetest.NewSigner(t), w); !assert.NoError(t, err) {
					return
				}
			}
		})
	}
	for range 3 {
		requireWhole(t, restored(t, backedUp(t, s)))
	}
	close(stop)
	done.Wait()
	requireWhole(t, s)
}

func TestBackupCanBeCanceled(t *testing.T) {
	s := filled(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	path := filepath.Join(t.TempDir(), "backup.db")
	require.ErrorIs(t, s.Backup(ctx, path), context.Canceled)
	left, err := filepath.Glob(path + "*")
	require.NoError(t, err)
	assert.Empty(t, left)
}
