package sqlite_test

import (
	"context"
	"database/sql"
	"io/fs"
	"os"
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

func openError(t *testing.T, path string) error {
	t.Helper()
	_, err := sqlite.Open(context.Background(), sqlite.Config{Path: path})
	require.Error(t, err)
	return err
}

// edit changes a closed store behind its back.
func edit(t *testing.T, path, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	_, err = db.Exec(statement)
	require.NoError(t, err)
	require.NoError(t, db.Close())
}

func TestFilesAreTheOwnersOnly(t *testing.T) {
	path := storePath(t)
	s := open(t, path)
	require.NoError(t, transact(s, kms.Key{}, enrolled(1)))
	backup := filepath.Join(t.TempDir(), "backup.db")
	require.NoError(t, s.Backup(context.Background(), backup))
	files, err := filepath.Glob(path + "*")
	require.NoError(t, err)
	require.Len(t, files, 4, "database, -wal, -shm, .lock")
	for _, file := range append(files, backup) {
		info, err := os.Stat(file)
		require.NoError(t, err)
		assert.Equal(t, fs.FileMode(0o600), info.Mode(), file)
	}
	info, err := os.Stat(filepath.Dir(path))
	require.NoError(t, err)
	assert.Equal(t, fs.ModeDir|0o700, info.Mode())
}

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b?c#d%41&mode=memory", "store.db")
	s, err := sqlite.Open(context.Background(), sqlite.Config{Path: path})
	require.NoError(t, err)
	require.NoError(t, storetest.AddKeyring(s))
	require.NoError(t, transact(s, kms.Key{}, enrolled(1)))
	require.NoError(t, s.Close())
	_, err = os.Stat(path)
	require.NoError(t, err, "the path is taken as it is")
	found, err := open(t, path).Machine(context.Background(), storetest.MachineID(1))
	require.NoError(t, err)
	assert.Equal(t, storetest.NewMachine(1), found)
}

func TestOneProcessAtATime(t *testing.T) {
	path := storePath(t)
	open(t, path)
	assert.ErrorContains(t, openError(t, path), "it holds the lock "+path+".lock")
	_, err := sqlite.Restore(context.Background(), sqlite.Restoration{From: path, Path: path, Replace: true})
	assert.ErrorContains(t, err, "it holds the lock")
}

func TestRefusesWhatIsNoStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("no database\n", 100)), 0o600))
	assert.ErrorContains(t, openError(t, path), "not a database")

	path = filepath.Join(t.TempDir(), "store.db")
	edit(t, path, "CREATE TABLE of_another_application (a)")
	assert.ErrorContains(t, openError(t, path), "not a keywright store")
}

func TestRefusesNewerVersion(t *testing.T) {
	path := storePath(t)
	s, err := sqlite.Open(context.Background(), sqlite.Config{Path: path})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	edit(t, path, "PRAGMA user_version = 99")
	assert.ErrorContains(t, openError(t, path), "a newer version of keywright made it (schema 99,")
	_, err = sqlite.Restore(context.Background(), sqlite.Restoration{From: path, Path: storePath(t)})
	assert.ErrorContains(t, err, "a newer version of keywright made it")
}

// SQLite deletes a write-ahead log whose database is gone: what was in it, too.
func TestRefusesOrphanLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	require.NoError(t, os.WriteFile(path+"-wal", []byte("changes"), 0o600))
	assert.ErrorContains(t, openError(t, path), "its database "+path+" is not")
}

func TestClosedStoreIsUnavailable(t *testing.T) {
	s, err := sqlite.Open(context.Background(), sqlite.Config{Path: storePath(t)})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	assert.ErrorIs(t, transact(s, kms.Key{}, enrolled(1)), kms.ErrUnavailable)
}

// A redemption is kept until its time, and forgotten by changes after it.
func TestExpiredRedemptionsArePruned(t *testing.T) {
	now := storetest.Epoch()
	path := storePath(t)
	s, err := sqlite.Open(context.Background(), sqlite.Config{Path: path, Clock: func() time.Time { return now }})
	require.NoError(t, err)
	defer func() { assert.NoError(t, s.Close()) }()
	challenge := storetest.Digest("challenge", 1)
	redeem := kms.Outcome{Redeem: &kms.Redemption{Challenge: challenge, KeepUntil: now.Add(time.Minute)}}
	require.NoError(t, transact(s, kms.Key{}, redeem))
	now = now.Add(time.Minute)
	require.NoError(t, transact(s, kms.Key{}, kms.Outcome{}))
	require.ErrorIs(t, transact(s, kms.Key{}, redeem), kms.ErrRedeemed)
	now = now.Add(time.Second)
	require.NoError(t, transact(s, kms.Key{}, kms.Outcome{}))
	require.NoError(t, transact(s, kms.Key{}, redeem))
}
