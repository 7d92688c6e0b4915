package secret_test

import (
	"bytes"
	"crypto/rand"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/secret"
)

const canary = "correct horse battery staple"

type nested struct {
	Exported secret.Bytes
	hidden   secret.Bytes
	list     []secret.Bytes
	pointer  *secret.Bytes
}

func newNested() nested {
	s := secret.Copy([]byte(canary))
	return nested{Exported: s, hidden: s, list: []secret.Bytes{s}, pointer: &s}
}

// leaks reports whether text shows the canary in a form that fmt could produce.
func leaks(text string) bool {
	lower := strings.ToLower(text)
	return strings.Contains(text, canary) ||
		strings.Contains(lower, hex.EncodeToString([]byte(canary))) ||
		strings.Contains(text, strings.Trim(fmt.Sprint([]byte(canary)), "[]"))
}

func TestNoVerbShowsASecret(t *testing.T) {
	s := secret.Copy([]byte(canary))
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%c", "%T"} {
		for _, value := range []any{s, &s, newNested(), []secret.Bytes{s}, map[string]secret.Bytes{"k": s}} {
			out := fmt.Sprintf(verb, value)
			assert.False(t, leaks(out), "verb %s of %T shows the secret: %s", verb, value, out)
		}
	}
}

func TestNoLogShowsASecret(t *testing.T) {
	var out bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(handler).Info("m", "plain", secret.Copy([]byte(canary)), "nested", newNested())
	}
	assert.NotEmpty(t, out.String())
	assert.False(t, leaks(out.String()), out.String())
}

func TestMarshalingIsRefused(t *testing.T) {
	s := secret.Copy([]byte(canary))
	_, err := json.Marshal(map[string]any{"s": s})
	require.ErrorIs(t, err, secret.ErrMarshal)
	_, err = xml.Marshal(s)
	require.ErrorIs(t, err, secret.ErrMarshal)
	var out bytes.Buffer
	require.ErrorIs(t, gob.NewEncoder(&out).Encode(s), secret.ErrMarshal)
	assert.False(t, leaks(out.String()))
}

func TestWipeReachesEveryCopyOfTheHandle(t *testing.T) {
	s := secret.Copy([]byte(canary))
	other := s
	view := s.Expose()
	s.Wipe()
	assert.Equal(t, make([]byte, len(canary)), view)
	assert.Zero(t, other.Len())
	s.Wipe()
	secret.Bytes{}.Wipe()
}

func TestWipeOverwritesTheWholeCapacity(t *testing.T) {
	backing := []byte(canary)
	secret.New(backing[:4]).Wipe()
	assert.Equal(t, make([]byte, len(canary)), backing)
}

func TestCloneIsIndependent(t *testing.T) {
	s := secret.Copy([]byte(canary))
	clone := s.Clone()
	assert.True(t, s.Equal(clone))
	s.Wipe()
	assert.Equal(t, canary, string(clone.Expose()))
	assert.False(t, s.Equal(clone))
}

func TestEqual(t *testing.T) {
	a := secret.Copy([]byte("a"))
	assert.True(t, a.Equal(secret.Copy([]byte("a"))))
	assert.False(t, a.Equal(secret.Copy([]byte("b"))))
	assert.False(t, a.Equal(secret.Copy([]byte("ab"))))
	assert.True(t, secret.Bytes{}.Equal(secret.New(nil)))
}

func TestRandom(t *testing.T) {
	s, err := secret.Random(rand.Reader, 32)
	require.NoError(t, err)
	assert.Equal(t, 32, s.Len())
	_, err = secret.Random(iotest.ErrReader(errors.New("no entropy")), 32)
	assert.ErrorContains(t, err, "no entropy")
}

func TestReadStopsAtItsLimit(t *testing.T) {
	s, err := secret.Read(strings.NewReader(canary), len(canary))
	require.NoError(t, err)
	assert.Equal(t, canary, string(s.Expose()))

	_, err = secret.Read(strings.NewReader(canary), len(canary)-1)
	require.ErrorIs(t, err, secret.ErrTooLong)

	s, err = secret.Read(strings.NewReader(""), 8)
	require.NoError(t, err)
	assert.Zero(t, s.Len())

	_, err = secret.Read(iotest.ErrReader(errors.New("broken pipe")), 8)
	assert.ErrorContains(t, err, "broken pipe")
}
