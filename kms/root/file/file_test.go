package file_test

import (
	"context"
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

func TestWrapsUnderTheSameFileAfterARestart(t *testing.T) {
	path, ctx, key := created(t), context.Background(), secret.Copy([]byte("the key of a keyring version"))
	wrapped, err := opened(t, path).Wrap(ctx, key, []byte("context"))
	require.NoError(t, err)
	assert.NotContains(t, string(wrapped), "keyring")
	got, err := opened(t, path).Unwrap(ctx, wrapped, []byte("context"))
	require.NoError(t, err)
	assert.True(t, key.Equal(got))
}

func TestUnwrapRefuses(t *testing.T) {
	ctx := context.Background()
	r := opened(t, created(t))
	wrapped, err := r.Wrap(ctx, secret.Copy([]byte("k")), []byte("context"))
	require.NoError(t, err)
	refused := func(r *file.Root, wrapped []byte, context string) {
		t.Helper()
		_, err := r.Unwrap(ctx, wrapped, []byte(context))
		require.ErrorIs(t, err, root.ErrDoesNotOpen)
	}
	refused(r, wrapped, "another context")
	refused(opened(t, created(t)), wrapped, "context")
	refused(r, nil, "context")
	refused(r, wrapped[:len(wrapped)-1], "context")
	for i := range wrapped {
		altered := append([]byte(nil), wrapped...)
		altered[i] ^= 1
		refused(r, altered, "context")
	}
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
	opened, err := after.Unwrap(t.Context(), wrapped, []byte("context"))
	require.NoError(t, err)
	assert.True(t, key.Equal(opened))

	require.NoError(t, os.Chmod(moved, 0o444))
	_, err = file.OpenCredential(moved)
	require.ErrorContains(t, err, "everybody")
}
