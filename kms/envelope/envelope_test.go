package envelope_test

import (
	"bytes"
	"crypto/rand"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/envelope"
	"keywright.dev/kms/secret"
)

//go:embed testdata/vectors.json
var vectorsJSON []byte

// vector is a text and what must become of it.
type vector struct {
	Name      string
	Class     string // ok, malformed or open
	Key       string // hex
	Context   envelope.Context
	Text      string
	Plaintext string // hex, for class ok
}

func vectors(t testing.TB) []vector {
	t.Helper()
	var vs []vector
	require.NoError(t, json.Unmarshal(vectorsJSON, &vs))
	require.NotEmpty(t, vs)
	return vs
}

func TestVectors(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			key, err := hex.DecodeString(v.Key)
			require.NoError(t, err)
			got, err := envelope.Open(secret.New(key), v.Context, v.Text)
			switch v.Class {
			case "ok":
				require.NoError(t, err)
				assert.Equal(t, v.Plaintext, hex.EncodeToString(got.Expose()))
			case "malformed":
				require.ErrorIs(t, err, envelope.ErrMalformed)
			case "open":
				require.ErrorIs(t, err, envelope.ErrOpen)
			default:
				t.Fatalf("unknown class %q", v.Class)
			}
		})
	}
}

func newKey(t testing.TB) secret.Bytes {
	t.Helper()
	key, err := secret.Random(rand.Reader, envelope.KeySize)
	require.NoError(t, err)
	return key
}

func fullContext() envelope.Context {
	return envelope.Context{
		Tenant: "default", Keyring: "prod", Version: 3, Binding: bytes.Repeat([]byte{7}, envelope.BindingSize),
		Machine: "m1", Volume: "v1", Purpose: "luks-keyslot", SecretVersion: 1,
	}
}

// TestAttack21EveryFieldOfTheContextBinds presents a wrapped secret as that of
// another machine, volume, purpose or version.
func TestAttack21EveryFieldOfTheContextBinds(t *testing.T) {
	key, plaintext := newKey(t), newKey(t)
	text, err := envelope.Seal(rand.Reader, key, fullContext(), plaintext)
	require.NoError(t, err)
	changes := map[string]func(*envelope.Context){
		"tenant":         func(c *envelope.Context) { c.Tenant = "other" },
		"keyring":        func(c *envelope.Context) { c.Keyring = "other" },
		"version":        func(c *envelope.Context) { c.Version++ },
		"binding":        func(c *envelope.Context) { c.Binding = bytes.Repeat([]byte{8}, envelope.BindingSize) },
		"no binding":     func(c *envelope.Context) { c.Binding = nil },
		"machine":        func(c *envelope.Context) { c.Machine = "m2" },
		"volume":         func(c *envelope.Context) { c.Volume = "v2" },
		"shifted":        func(c *envelope.Context) { c.Machine, c.Volume = "m1v", "1" },
		"purpose":        func(c *envelope.Context) { c.Purpose = "recovery" },
		"secret version": func(c *envelope.Context) { c.SecretVersion++ },
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			c := fullContext()
			change(&c)
			_, err := envelope.Open(key, c, text)
			require.ErrorIs(t, err, envelope.ErrOpen)
		})
	}
	got, err := envelope.Open(key, fullContext(), text)
	require.NoError(t, err)
	assert.True(t, plaintext.Equal(got))
}

func TestNoByteCanBeChanged(t *testing.T) {
	key := newKey(t)
	text, err := envelope.Seal(rand.Reader, key, fullContext(), secret.Copy([]byte("s")))
	require.NoError(t, err)
	for i := range text {
		altered := []byte(text)
		altered[i] ^= 1
		_, err := envelope.Open(key, fullContext(), string(altered))
		require.Error(t, err, "byte %d", i)
		_, err = envelope.Open(key, fullContext(), text[:i])
		require.ErrorIs(t, err, envelope.ErrMalformed, "cut at %d", i)
	}
}

func TestWrappingsOfOneSecretDiffer(t *testing.T) {
	key := newKey(t)
	one, err := envelope.Seal(rand.Reader, key, fullContext(), key)
	require.NoError(t, err)
	two, err := envelope.Seal(rand.Reader, key, fullContext(), key)
	require.NoError(t, err)
	assert.NotEqual(t, one, two)
}

func TestSealRefuses(t *testing.T) {
	noEntropy := iotest.ErrReader(errors.New("no entropy"))
	key, one := newKey(t), secret.Copy([]byte{1})
	with := func(change func(*envelope.Context)) envelope.Context {
		c := fullContext()
		change(&c)
		return c
	}
	_, err := envelope.Seal(noEntropy, key, fullContext(), one)
	require.ErrorContains(t, err, "no entropy")
	for want, f := range map[string]func() (string, error){
		"length is 0": func() (string, error) { return envelope.Seal(rand.Reader, key, fullContext(), secret.Bytes{}) },
		"length is 16385": func() (string, error) {
			return envelope.Seal(rand.Reader, key, fullContext(), secret.New(make([]byte, envelope.MaxPlaintext+1)))
		},
		"key has 1 bytes": func() (string, error) { return envelope.Seal(rand.Reader, one, fullContext(), one) },
		`keyring "a.b"`: func() (string, error) {
			return envelope.Seal(rand.Reader, key, with(func(c *envelope.Context) { c.Keyring = "a.b" }), one)
		},
		`purpose ""`: func() (string, error) {
			return envelope.Seal(rand.Reader, key, with(func(c *envelope.Context) { c.Purpose = "" }), one)
		},
		"version 0": func() (string, error) {
			return envelope.Seal(rand.Reader, key, with(func(c *envelope.Context) { c.Version = 0 }), one)
		},
		"binding has 3": func() (string, error) {
			return envelope.Seal(rand.Reader, key, with(func(c *envelope.Context) { c.Binding = []byte("abc") }), one)
		},
		"the machine has 131072 bytes": func() (string, error) {
			return envelope.Seal(rand.Reader, key, with(func(c *envelope.Context) { c.Machine = string(make([]byte, 1<<17)) }), one)
		},
	} {
		_, err := f()
		require.ErrorContains(t, err, want)
	}
}

func TestErrorsNeverRepeatTheText(t *testing.T) {
	_, err := envelope.Parse("kw1.prod.3.c2VjcmV0IHNlY3JldA")
	require.ErrorIs(t, err, envelope.ErrMalformed)
	assert.NotContains(t, fmt.Sprintf("%+v", err), "c2Vj")
}

// FuzzParse holds that what parses marshals again to the same text.
func FuzzParse(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.Text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		w, err := envelope.Parse(text)
		if err != nil {
			require.ErrorIs(t, err, envelope.ErrMalformed)
			return
		}
		assert.Equal(t, text, w.String())
	})
}
