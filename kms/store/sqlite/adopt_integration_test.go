//go:build integration

package sqlite_test

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/store/sqlite"
)

// nobody is a user for whom a service could run.
const nobody = 65534

// TestRestoreByRoot restores into the folder of another user, who has to be able
// to open the store then. It has to run as root.
func TestRestoreByRoot(t *testing.T) {
	require.Zero(t, os.Geteuid(), "this test restores for another user: run it as root")
	backup, path := backedUp(t, filled(t)), storePath(t)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.Chown(filepath.Dir(path), nobody, nobody))
	_, err := sqlite.Restore(context.Background(), sqlite.Restoration{From: backup, Path: path})
	require.NoError(t, err)
	for _, file := range []string{path, path + ".lock"} {
		info, err := os.Stat(file)
		require.NoError(t, err)
		assert.EqualValues(t, nobody, info.Sys().(*syscall.Stat_t).Uid, file)
	}

	// Nothing that is elsewhere is given away.
	victim := filepath.Join(t.TempDir(), "victim")
	require.NoError(t, os.WriteFile(victim, nil, 0o600))
	require.NoError(t, os.Remove(path+".lock"))
	for _, link := range []func(string, string) error{os.Link, os.Symlink} {
		require.NoError(t, link(victim, path+".lock"))
		_, err = sqlite.Restore(context.Background(), sqlite.Restoration{From: backup, Path: path, Replace: true})
		require.Error(t, err)
		info, err := os.Stat(victim)
		require.NoError(t, err)
		assert.Zero(t, info.Sys().(*syscall.Stat_t).Uid)
		require.NoError(t, os.Remove(path+".lock"))
	}
}
