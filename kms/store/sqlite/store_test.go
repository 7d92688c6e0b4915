package sqlite_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/store/sqlite"
	"keywright.dev/kms/store/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Store { return openBare(t, storePath(t)) })
}

func storePath(t testing.TB) string { return filepath.Join(t.TempDir(), "data", "store.db") }

// open opens a store with the keyring that the rows of storetest name.
func open(t testing.TB, path string) *sqlite.Store {
	t.Helper()
	s := openBare(t, path)
	require.NoError(t, storetest.AddKeyring(s))
	return s
}

func openBare(t testing.TB, path string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(context.Background(), sqlite.Config{Path: path})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Close()) })
	return s
}
