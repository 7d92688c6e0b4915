package local_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/root"
	"keywright.dev/kms/root/local"
	"keywright.dev/kms/secret"
)

func TestParseURI(t *testing.T) {
	for uri, want := range map[string]local.Location{
		"x:///a/b":            {Path: "/a/b", Options: map[string]string{}},
		"x:///a%20b?k=v%20&l": {},
		"x:///a%20b?k=v%20":   {Path: "/a b", Options: map[string]string{"k": "v "}},
		"x:?k=v&l=w":          {Options: map[string]string{"k": "v", "l": "w"}},
	} {
		got, err := local.ParseURI(uri, "x", "k", "l")
		if want.Options == nil {
			require.Error(t, err, uri)
			continue
		}
		require.NoError(t, err, uri)
		assert.Equal(t, want, got)
	}
}

func TestParseURIRefuses(t *testing.T) {
	for uri, reason := range map[string]string{
		"":                                  "scheme",
		"y:///a":                            `"y", not "x"`,
		"x://a/b":                           "host",
		"x://hunter2@/b":                    "host",
		"x:a":                               "absolute",
		"x:///a/../b":                       "absolute",
		"x:///a/":                           "absolute",
		"x:///a%00":                         "absolute",
		"x:///a#":                           "fragment",
		"x:///a?passphrase=hunter2":         `unknown key "passphrase": known are k, l`,
		"x:///a?k=hunter2&k=2":              `"k" 2 times`,
		"x:///a?k=":                         `no value for "k"`,
		"x:///a?hunter2":                    "could be a secret",
		"x:///a?hunter2=1":                  "could be a secret",
		"x:///a?hunter2=1&hunter2=2":        "could be a secret",
		"x:///a?k=%zzhunter2":               "key=value",
		"x:///a?k=hunter2;l=2":              "key=value",
		"x:///%zzhunter2":                   "not a URI",
		"x:///\x7fhunter2":                  "not a URI",
		"x:///" + strings.Repeat("a", 9000): "9005 bytes",
	} {
		_, err := local.ParseURI(uri, "x", "k", "l")
		require.ErrorContains(t, err, reason, uri)
		assert.NotContains(t, err.Error(), "hunter2")
	}
}

func FuzzParseURI(f *testing.F) {
	f.Fuzz(func(t *testing.T, uri string) {
		l, err := local.ParseURI(uri, "x", "k", "l")
		if err != nil {
			require.Less(t, len(err.Error()), 300)
			return
		}
		require.True(t, l.Path == "" || filepath.IsAbs(l.Path) && filepath.Clean(l.Path) == l.Path)
		require.LessOrEqual(t, len(l.Options), 2)
	})
}

func TestFileIsPrivateAndNeverReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, local.Create(path, secret.New([]byte("first"))))
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o600), info.Mode())
	require.ErrorIs(t, local.Create(path, secret.New([]byte("second"))), fs.ErrExist)
	text, err := local.Read(path, 5, local.Private)
	require.NoError(t, err)
	assert.Equal(t, "first", string(text.Expose()))
	left, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	assert.Len(t, left, 1, "no temporary file stays behind")

	_, err = local.Read(path, 4, local.Private)
	require.ErrorIs(t, err, secret.ErrTooLong)
	require.NoError(t, os.Chmod(path, 0o620))
	_, err = local.Read(path, 5, local.Private)
	require.ErrorContains(t, err, "chmod 600")
}

func TestPipesAreNotWaitedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	for _, check := range []func(fs.FileInfo) error{local.Private, local.Credential} {
		_, err := local.Read(path, 5, check)
		require.ErrorContains(t, err, "not a regular file")
	}
}

func TestCredentialPath(t *testing.T) {
	path, err := local.CredentialPath("/run/credentials/x", "root.key")
	require.NoError(t, err)
	assert.Equal(t, "/run/credentials/x/root.key", path)
	_, err = local.CredentialPath("", "root.key")
	require.ErrorContains(t, err, "LoadCredential=")
	for _, name := range []string{"", ".", "..", "../x", "/x", "a/b"} {
		_, err = local.CredentialPath("/run", name)
		require.Error(t, err, name)
	}
}

func TestAwaitEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	release, began := make(chan struct{}), make(chan struct{})
	go func() {
		<-began
		cancel()
	}()
	_, err := local.Await(ctx, func() (secret.Bytes, error) {
		close(began)
		<-release
		return secret.Bytes{}, nil
	})
	close(release)
	require.ErrorIs(t, err, root.ErrUnavailable)
	require.ErrorIs(t, err, context.Canceled)

	_, err = local.Await(ctx, func() (secret.Bytes, error) { panic("it began") })
	require.ErrorIs(t, err, root.ErrUnavailable)
	broken := errors.New("broken")
	_, err = local.Await(t.Context(), func() (secret.Bytes, error) { return secret.Bytes{}, broken })
	require.Equal(t, broken, err)
}

func TestDigest(t *testing.T) {
	text := local.AddDigest("a\nb\n")
	lines, whole := local.CutDigest(text)
	assert.True(t, whole)
	assert.Equal(t, "a\nb\n", lines)
	for i := range text {
		altered := []byte(text)
		altered[i] ^= 1
		for _, text := range []string{text[:i], string(altered), text + text[i:]} {
			_, whole := local.CutDigest(text)
			assert.False(t, whole, "byte %d", i)
		}
	}
}
