package kms_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/root"
	"keywright.dev/kms/root/file"
	"keywright.dev/kms/root/roottest"
	"keywright.dev/kms/store/sqlite"
)

func TestMain(m *testing.M) { roottest.Main(m, replaceRoot) }

// replaceRoot rewraps everything by root b of a folder and removes root a.
func replaceRoot(folder string, point int) error {
	ctx := context.Background()
	store, err := sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(folder, "store.db")})
	if err != nil {
		return err
	}
	defer store.Close()
	a, errA := file.Open(filepath.Join(folder, "a"))
	b, errB := file.Open(filepath.Join(folder, "b"))
	if errA != nil || errB != nil {
		return fmt.Errorf("%v %v", errA, errB)
	}
	both, err := serviceOn(store, roottest.Deadly(a, &point), roottest.Deadly(b, &point))
	if err != nil {
		return err
	}
	if _, failures, err := both.RewrapRoots(ctx, operator()); err != nil || len(failures) > 0 {
		return fmt.Errorf("%v %v", err, failures)
	}
	alone, err := serviceOn(store, roottest.Deadly(b, &point))
	if err != nil {
		return err
	}
	_, err = alone.RemoveRoot(ctx, operator(), a.URI())
	return err
}

func serviceOn(store *sqlite.Store, roots ...root.Root) (*kms.Service, error) {
	keys, err := kms.OpenKeys(context.Background(), kms.KeysConfig{
		Store: store, Roots: roots, Clock: time.Now, Uptime: func() time.Duration { return 0 }, Random: rand.Reader,
	})
	if err != nil {
		return nil, err
	}
	identity, log, err := signers()
	if err != nil {
		return nil, err
	}
	return kms.New(kms.Config{Store: store, Keys: keys, Identity: identity, Log: log, Clock: time.Now, Random: rand.Reader})
}

// A process that dies at any call of a root leaves a store that a root opens, and
// another run finishes.
func TestReplacingARootSurvivesKills(t *testing.T) {
	folder := t.TempDir()
	for _, name := range []string{"a", "b"} {
		require.NoError(t, file.Create(filepath.Join(folder, name), rand.Reader))
	}
	pristine := filepath.Join(folder, "store.db")
	store, err := sqlite.Open(t.Context(), sqlite.Config{Path: pristine})
	require.NoError(t, err)
	a, err := file.Open(filepath.Join(folder, "a"))
	require.NoError(t, err)
	b, err := file.Open(filepath.Join(folder, "b"))
	require.NoError(t, err)
	_, err = serviceOn(store, a)
	require.NoError(t, err)
	require.NoError(t, store.Close())

	killed := 0
	for point := 1; ; point++ {
		run := t.TempDir()
		for _, name := range []string{"a", "b", "store.db"} {
			content, err := os.ReadFile(filepath.Join(folder, name))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(run, name), content, 0o600))
		}
		killedHere := roottest.KilledAt(t, run, point)
		opensAfterKill(t, run, a, b)
		if !killedHere {
			break // nothing was left to be killed at
		}
		killed++
	}
	assert.GreaterOrEqual(t, killed, 2*(2+4+1+versions), "opening, rewrapping, opening again, and a witness for each")
}

func opensAfterKill(t *testing.T, folder string, a, b root.Root) {
	t.Helper()
	store, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(folder, "store.db")})
	require.NoError(t, err)
	both, err := serviceOn(store, a, b)
	require.NoError(t, err)
	for _, l := range both.Keys.Leases() {
		require.Positive(t, l.Left, "%s@%d opens", l.Keyring, l.Version)
	}
	require.NoError(t, store.Close())
	require.NoError(t, replaceRoot(folder, 0), "another run finishes")
	store, err = sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(folder, "store.db")})
	require.NoError(t, err)
	defer store.Close()
	alone, err := serviceOn(store, b)
	require.NoError(t, err)
	states, err := alone.Roots(t.Context())
	require.NoError(t, err)
	require.Equal(t, []kms.RootState{{URI: b.URI(), Configured: true, Wraps: versions, Versions: versions}}, states)
}
