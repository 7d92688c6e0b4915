package serve

import (
	"crypto/rand"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/root"
	"keywright.dev/kms/root/file"
	"keywright.dev/kms/store/sqlite"
)

// The authority is replaced when two thirds of its life are over, and stays until
// then.
func TestAuthorityIsReplacedWhenItIsDue(t *testing.T) {
	dir, now := t.TempDir(), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	clock := func() time.Time { return now }
	store, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(dir, "store.db"), Clock: clock})
	require.NoError(t, err)
	defer func() { assert.NoError(t, store.Close()) }()
	require.NoError(t, file.Create(filepath.Join(dir, "root.key"), rand.Reader))
	key, err := file.Open(filepath.Join(dir, "root.key"))
	require.NoError(t, err)
	begun := time.Now()
	keys, err := kms.OpenKeys(t.Context(), kms.KeysConfig{
		Store: store, Roots: []root.Root{key}, Clock: clock, Uptime: func() time.Duration { return time.Since(begun) }, Random: rand.Reader,
	})
	require.NoError(t, err)
	defer keys.Wipe()

	certificate := func() string {
		t.Helper()
		ca, err := openCA(t.Context(), keys, clock)
		require.NoError(t, err)
		return string(ca.PEM())
	}
	first := certificate()
	now = now.AddDate(6, 7, 0)
	assert.Equal(t, first, certificate())
	now = now.AddDate(0, 2, 0)
	second := certificate()
	assert.NotEqual(t, first, second)
	assert.Equal(t, second, certificate())
	rows, err := store.ServiceKeys(t.Context())
	require.NoError(t, err)
	assert.Len(t, rows, 1, "the one before is gone")
}
