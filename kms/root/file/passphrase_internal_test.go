package file

import (
	"bytes"
	"context"
	"crypto/rand"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/root"
	"keywright.dev/kms/root/local"
	"keywright.dev/kms/root/roottest"
	"keywright.dev/kms/secret"
)

// cheap spares time where the cost is not what is tested.
var cheap = cost{memory: 64, passes: 1, lanes: 2}

// underPassphrase returns the URI of a new key file under a passphrase, and the
// file's path.
func underPassphrase(t testing.TB) (uri, path string) {
	t.Helper()
	dir := t.TempDir()
	path = filepath.Join(dir, "root.key")
	uri = "file://" + path + "?passphrase-file=" + filepath.Join(dir, "passphrase")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "passphrase"), []byte("correct horse\n"), 0o600))
	s, err := locate(uri, "")
	require.NoError(t, err)
	_, err = s.create(t.Context(), rand.Reader, cheap)
	require.NoError(t, err)
	return uri, path
}

func openedURI(t testing.TB, uri string) *Root {
	t.Helper()
	r, err := OpenURI(t.Context(), uri, "")
	require.NoError(t, err)
	return r
}

func TestPassphraseConformance(t *testing.T) {
	roottest.Run(t, func(t *testing.T) roottest.Subject {
		uri, _ := underPassphrase(t)
		return roottest.Subject{
			Root:  openedURI(t, uri),
			Again: func(t testing.TB) root.Root { return openedURI(t, uri) },
			Other: func(t testing.TB) root.Root { other, _ := underPassphrase(t); return openedURI(t, other) },
		}
	})
}

func TestWrongPassphraseIsNoDamage(t *testing.T) {
	uri, path := underPassphrase(t)
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(path), "passphrase"), []byte("battery staple"), 0o600))
	_, err := OpenURI(t.Context(), uri, "")
	require.ErrorIs(t, err, ErrPassphrase)
	assert.NotContains(t, err.Error(), "damaged")
	assert.NotContains(t, err.Error(), "battery")

	_, err = Open(path)
	require.ErrorContains(t, err, "passphrase-file=")
	plain := filepath.Join(t.TempDir(), "plain")
	require.NoError(t, Create(plain, rand.Reader))
	_, err = OpenURI(t.Context(), strings.ReplaceAll(uri, path, plain), "")
	require.ErrorContains(t, err, "under no passphrase")
}

func TestDamageIsNoWrongPassphrase(t *testing.T) {
	uri, path := underPassphrase(t)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	for i := range text {
		for _, altered := range [][]byte{text[:i], slicesTurned(text, i)} {
			require.NoError(t, os.WriteFile(path, altered, 0o600))
			_, err := OpenURI(t.Context(), uri, "")
			require.Error(t, err)
			require.NotErrorIs(t, err, ErrPassphrase, "byte %d", i)
			if i >= len(protectedHeader) {
				require.ErrorContains(t, err, "it is damaged", "byte %d", i)
			}
		}
	}
}

func slicesTurned(text []byte, i int) []byte {
	turned := bytes.Clone(text)
	turned[i] ^= 1
	return turned
}

func TestKeyStaysWhereThePassphraseChanges(t *testing.T) {
	uri, path := underPassphrase(t)
	before := openedURI(t, uri)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.NotContains(t, string(text), string(renderPlain(before.key).Expose()[len(header):]))
	locked, err := protect(before.key, secret.New([]byte("another")), cheap, rand.Reader)
	require.NoError(t, err)
	key, err := locked.open(secret.New([]byte("another")))
	require.NoError(t, err)
	after, err := newRoot(key)
	require.NoError(t, err)
	assert.Equal(t, before.URI(), after.URI())
}

func TestPassphraseFromCredentialAndDescriptor(t *testing.T) {
	uri, path := underPassphrase(t)
	name := openedURI(t, uri).URI()
	credentials := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(credentials, "phrase"), []byte("correct horse"), 0o440))
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(credentials, "root.key"), text, 0o440))
	for _, uri := range []string{
		"file://" + path + "?passphrase-credential=phrase",
		"file:?credential=root.key&passphrase-credential=phrase",
		"file://" + path + "?passphrase-fd=" + pipe(t, "correct horse"),
		"file://" + path + "?passphrase-fd=" + pipe(t, "correct horse\n"),
	} {
		r, err := OpenURI(t.Context(), uri, credentials)
		require.NoError(t, err, uri)
		assert.Equal(t, name, r.URI())
	}
	for reason, bad := range map[string]string{
		"it is empty":          pipe(t, "\n"),
		"longer than allowed":  pipe(t, strings.Repeat("x", 1025)),
		"bad file descriptor":  "4000",
		"no pipe, file or ter": socket(t),
	} {
		_, err := OpenURI(t.Context(), "file://"+path+"?passphrase-fd="+bad, "")
		require.ErrorContains(t, err, reason)
	}
}

// pipe returns the number of a descriptor that text can be read from.
func pipe(t *testing.T, text string) string {
	t.Helper()
	var ends [2]int
	require.NoError(t, syscall.Pipe(ends[:]))
	_, err := syscall.Write(ends[1], []byte(text))
	require.NoError(t, err)
	require.NoError(t, syscall.Close(ends[1]))
	return strconv.Itoa(ends[0])
}

func socket(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, syscall.Close(fd)) })
	return strconv.Itoa(fd)
}

func TestOpenEndsWithItsContext(t *testing.T) {
	_, path := underPassphrase(t)
	var ends [2]int
	require.NoError(t, syscall.Pipe(ends[:]))
	defer func() { require.NoError(t, syscall.Close(ends[1])) }()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := OpenURI(ctx, "file://"+path+"?passphrase-fd="+strconv.Itoa(ends[0]), "")
	require.ErrorIs(t, err, root.ErrUnavailable)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestURIRefusals(t *testing.T) {
	for uri, reason := range map[string]string{
		"file:":                                            "names no file",
		"file:///a?credential=b":                           "a path and a credential",
		"file:?credential=../b":                            "without a folder",
		"file:///a?passphrase=hunter2":                     `unknown key "passphrase"`,
		"file:///a?passphrase-fd=2":                        "passphrase-fd",
		"file:///a?passphrase-fd=x":                        "passphrase-fd",
		"file:///a?passphrase-file=b":                      "absolute",
		"file:///a?passphrase-file=/b&passphrase-fd=3":     "more than one",
		"file:///a?passphrase-credential=b/c":              "without a folder",
		"file:///a?passphrase-file=/b&passphrase-file=/cc": "2 times",
	} {
		_, err := OpenURI(t.Context(), uri, "/run")
		require.ErrorContains(t, err, reason)
		require.ErrorContains(t, err, example)
		assert.NotContains(t, err.Error(), "hunter2")
	}
	_, err := OpenURI(t.Context(), "file:?credential=b", "")
	require.ErrorContains(t, err, "LoadCredential=")
}

func TestCreateURI(t *testing.T) {
	path := filepath.Join(t.TempDir(), "root.key")
	made, err := CreateURI(t.Context(), "file://"+path, "", rand.Reader)
	require.NoError(t, err)
	assert.Equal(t, made.URI(), openedURI(t, "file://"+path).URI())
	_, err = CreateURI(t.Context(), "file://"+path+"?passphrase-fd=3", "", rand.Reader)
	require.ErrorIs(t, err, fs.ErrExist)
	_, err = CreateURI(t.Context(), "file:?credential=root.key", "/run", rand.Reader)
	require.ErrorContains(t, err, "systemd-creds")

	locked := filepath.Join(t.TempDir(), "root.key")
	_, err = CreateURI(t.Context(), "file://"+locked+"?passphrase-file=/absent", "", rand.Reader)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoFileExists(t, locked)
	made, err = CreateURI(t.Context(), "file://"+locked+"?passphrase-fd="+pipe(t, "correct horse"), "", rand.Reader)
	require.NoError(t, err)
	assert.Equal(t, made.URI(), openedURI(t, "file://"+locked+"?passphrase-fd="+pipe(t, "correct horse")).URI())
}

func TestCostsOutOfBounds(t *testing.T) {
	salt := bytes.Repeat([]byte{1}, saltSize)
	for _, c := range []cost{{8, 1, 2}, {64, 0, 1}, {64, 1, 0}, {64, 17, 1}, {1 << 20, 1, 17}, {2<<20 + 1, 1, 4}, {1<<32 - 1, 1<<32 - 1, 1<<32 - 1}} {
		p := protected{cost: c, salt: salt, sealed: make([]byte, sealedSize)}
		_, err := parseProtected(p.render())
		require.ErrorContains(t, err, "allowed are", "%+v", c)
	}
	require.NoError(t, defaultCost().check())
	require.NoError(t, cost{2 << 20, 1, 4}.check())
}

func FuzzProtected(f *testing.F) {
	f.Add(protected{cost: cheap, salt: make([]byte, saltSize), sealed: make([]byte, sealedSize)}.render())
	f.Fuzz(func(t *testing.T, text string) {
		lines, _ := local.CutDigest(text)
		for _, text := range []string{text, local.AddDigest(lines)} {
			p, err := parseProtected(text)
			if err == nil {
				require.Equal(t, text, p.render())
				require.NoError(t, p.cost.check())
			}
		}
	})
}

func FuzzPlain(f *testing.F) {
	f.Add([]byte(header + strings.Repeat("A", 43) + "="))
	f.Fuzz(func(t *testing.T, text []byte) {
		key, err := parsePlain(secret.Copy(text))
		if err == nil {
			require.Equal(t, renderPlain(key).Expose(), bytes.TrimSuffix(text, []byte{'\n'}))
		}
	})
}

func FuzzURI(f *testing.F) {
	f.Fuzz(func(t *testing.T, uri string) {
		s, err := locate(uri, "/run/credentials")
		if err == nil {
			require.True(t, filepath.IsAbs(s.path))
			require.NotNil(t, s.check)
		}
	})
}
