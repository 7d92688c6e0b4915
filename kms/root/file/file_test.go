package file_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/root"
	"keywright.dev/kms/root/file"
	"keywright.dev/kms/root/roottest"
	"keywright.dev/kms/secret"
)

func created(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "root.key")
	require.NoError(t, file.Create(path, rand.Reader))
	return path
}

func opened(t *testing.T, path string) *file.Root {
	t.Helper()
	r, err := file.Open(path)
	require.NoError(t, err)
	return r
}

func TestConformance(t *testing.T) {
	roottest.Run(t, func(t *testing.T) roottest.Subject {
		path := created(t)
		return roottest.Subject{
			Root:  opened(t, path),
			Again: func(testing.TB) root.Root { return opened(t, path) },
			Other: func(testing.TB) root.Root { return opened(t, created(t)) },
		}
	})
}

func TestFileIsPrivateAndNeverReplaced(t *testing.T) {
	path := created(t)
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o600), info.Mode())
	before, err := os.ReadFile(path)
	require.NoError(t, err)

	require.ErrorIs(t, file.Create(path, rand.Reader), fs.ErrExist)
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, before, after)
	left, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	assert.Len(t, left, 1, "no temporary file stays behind")
}

func TestCreateFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "root.key")
	require.ErrorContains(t, file.Create(path, iotest.ErrReader(errors.New("no entropy"))), "no entropy")
	require.NoFileExists(t, path)
	require.ErrorIs(t, file.Create(filepath.Join(path, "missing"), rand.Reader), fs.ErrNotExist)
}

func TestOpenRefuses(t *testing.T) {
	_, err := file.Open(filepath.Join(t.TempDir(), "absent"))
	require.ErrorIs(t, err, fs.ErrNotExist)

	for name, content := range map[string]string{
		"empty":        "",
		"other header": "keywright-root-v2\n" + strings.Repeat("A", 43) + "=",
		"short key":    "keywright-root-v1\nQUJD",
		"not base64":   "keywright-root-v1\n" + strings.Repeat("!", 44),
		"longer":       "keywright-root-v1\n" + strings.Repeat("A", 43) + "=\nmore",
		"far too long": strings.Repeat("A", 4096),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "root.key")
			require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
			_, err := file.Open(path)
			require.ErrorContains(t, err, path)
		})
	}

	readable := created(t)
	require.NoError(t, os.Chmod(readable, 0o640))
	_, err = file.Open(readable)
	require.ErrorContains(t, err, "chmod 600")
	_, err = file.Open(t.TempDir())
	require.ErrorContains(t, err, "not a regular file")
}

func TestTrailingLineBreakIsAllowed(t *testing.T) {
	path := created(t)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, append(text, '\n'), 0o600))
	opened(t, path)
}

func TestNothingPrintsTheKey(t *testing.T) {
	path := created(t)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	shown := fmt.Sprintf("%v %+v %#v", *opened(t, path), opened(t, path), *opened(t, path))
	assert.NotContains(t, shown, strings.SplitN(string(text), "\n", 2)[1])
	assert.Less(t, len(shown), 1500, "a key schedule would be longer")
}

func TestKeyFileMayMove(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "root.key")
	require.NoError(t, file.Create(path, rand.Reader))
	before, err := file.Open(path)
	require.NoError(t, err)
	key := secret.New([]byte("0123456789abcdef0123456789abcdef"))
	wrapped, err := before.Wrap(t.Context(), key, []byte("context"))
	require.NoError(t, err)

	moved := filepath.Join(t.TempDir(), "credential")
	require.NoError(t, os.Rename(path, moved))
	require.NoError(t, os.Chmod(moved, 0o440))
	_, err = file.Open(moved)
	require.ErrorContains(t, err, "chmod 600")
	after, err := file.OpenCredential(moved)
	require.NoError(t, err)
	assert.Equal(t, before.URI(), after.URI())
	opened, err := after.Unwrap(t.Context(), wrapped.Ciphertext, []byte("context"))
	require.NoError(t, err)
	assert.True(t, key.Equal(opened))

	require.NoError(t, os.Chmod(moved, 0o444))
	_, err = file.OpenCredential(moved)
	require.ErrorContains(t, err, "everybody")
}
