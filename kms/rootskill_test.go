package kms_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/root"
	"keywright.dev/kms/root/file"
	"keywright.dev/kms/secret"
	"keywright.dev/kms/store/sqlite"
)

// The kill tests run their own binary as a child, which kills itself at a point.
const (
	killFolder = "KMS_TEST_KILL_FOLDER"
	killPoint  = "KMS_TEST_KILL_POINT"
)

func TestMain(m *testing.M) {
	folder := os.Getenv(killFolder)
	if folder == "" {
		os.Exit(m.Run())
	}
	point, err := strconv.Atoi(os.Getenv(killPoint))
	if err == nil {
		err = replaceRoot(folder, point)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// deadly is a root that kills the process before or after one of its calls.
type deadly struct {
	root.Root
	left *int
}

func (d deadly) point() {
	if *d.left--; *d.left == 0 {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

func (d deadly) Wrap(ctx context.Context, key secret.Bytes, c []byte) (root.Wrapped, error) {
	d.point()
	defer d.point()
	return d.Root.Wrap(ctx, key, c)
}

func (d deadly) Unwrap(ctx context.Context, ciphertext, c []byte) (secret.Bytes, error) {
	d.point()
	defer d.point()
	return d.Root.Unwrap(ctx, ciphertext, c)
}

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
	both, err := serviceOn(store, deadly{a, &point}, deadly{b, &point})
	if err != nil {
		return err
	}
	if _, failures, err := both.RewrapRoots(ctx, operator()); err != nil || len(failures) > 0 {
		return fmt.Errorf("%v %v", err, failures)
	}
	alone, err := serviceOn(store, deadly{b, &point})
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
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), killFolder+"="+run, killPoint+"="+strconv.Itoa(point))
		child.Stderr = os.Stderr
		err := child.Run()
		opensAfterKill(t, run, a, b)
		if err == nil {
			break // nothing was left to be killed at
		}
		status, ok := child.ProcessState.Sys().(syscall.WaitStatus)
		require.True(t, ok && status.Signal() == syscall.SIGKILL, err)
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
