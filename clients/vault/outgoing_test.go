package vault

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/root"
	"keywright.dev/kms/secret"
)

func TestBodyIsWipedWhenNothingReadsItAnyMore(t *testing.T) {
	text := []byte("a key")
	sent := &outgoing{body: secret.New(text)}
	req, err := http.NewRequestWithContext(sent.in(t.Context()), http.MethodPut, "http://vault/", bytes.NewReader(text))
	require.NoError(t, err)
	first := sent.follow(req)
	second, err := first.GetBody()
	require.NoError(t, err)

	sent.end()
	require.NoError(t, first.Body.Close())
	require.NoError(t, first.Body.Close())
	assert.Equal(t, "a key", string(text), "the other is still read")
	require.NoError(t, iotest.TestReader(second, []byte("a key")))
	require.NoError(t, second.Close())
	assert.Equal(t, make([]byte, 5), text)
	_, err = second.Read(make([]byte, 1))
	require.ErrorIs(t, err, http.ErrBodyReadAfterClose)
}

func TestBodyIsWipedWithTheCall(t *testing.T) {
	text := []byte("a key")
	sent := &outgoing{body: secret.New(text)}
	sent.end()
	assert.Equal(t, make([]byte, 5), text)
}

func TestAnswersAreWiped(t *testing.T) {
	key := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{1}, root.KeySize))
	for _, c := range []string{`{"data":{"plaintext":"` + key + `"}}`, `{"data":{"plaintext":"` + key + `"}`} {
		text := []byte(c)
		got, err := parseDecrypted(secret.New(text))
		assert.Equal(t, err == nil, got.Len() == root.KeySize)
		assert.Equal(t, make([]byte, len(text)), text)
	}
	text := []byte(`{"auth":{"client_token":"t"}}`)
	_, err := parseSession(secret.New(text), time.Time{})
	require.NoError(t, err)
	assert.Equal(t, make([]byte, len(text)), text)
}

// A body is written into a buffer that never had to grow: what it left behind
// could not be wiped.
func TestBodiesAreWrittenInPlace(t *testing.T) {
	key := secret.Copy(bytes.Repeat([]byte{1}, root.KeySize))
	for _, b := range []secret.Bytes{encryptBody(key, []byte("context")), decryptBody([]byte("vault:v1:"), nil)} {
		assert.Equal(t, b.Len(), cap(b.Expose()))
	}
	b, err := object(field{"role_id", []byte("r")}, field{"empty", nil}, field{"secret_id", []byte("s")})
	require.NoError(t, err)
	assert.JSONEq(t, `{"role_id":"r","secret_id":"s"}`, string(b.Expose()))
	_, err = object(field{"role", []byte(`"`)})
	require.ErrorIs(t, err, root.ErrRefused)
}

func FuzzAnswers(f *testing.F) {
	for _, seed := range []string{
		"vault:v1:AAAA", "vault:v0:AAAA", "vault:v1:AA=\n=", `{"data":{"plaintext":"AQ=="}}`, `{"data":{"ciphertext":"vault:v12:AAAA"}}`,
		`{"data":{"type":"aes256-gcm96","latest_version":3}}`, `{"auth":{"client_token":"t","lease_duration":3600}}`,
		"Sun, 06 Nov 1994 08:49:37 GMT", "120", "error\x00 of \u202ewords hvs.CAESIJ3xqFhkXh2Yl0pO7Qbn",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if version, err := parseCiphertext(text); err == nil {
			assert.Regexp(t, `^vault:v[1-9][0-9]*:[A-Za-z0-9+/]*=*$`, string(text))
			assert.Positive(t, version)
		}
		if w, err := parseEncrypted(secret.Copy(text)); err == nil {
			assert.NotEmpty(t, w.Version)
			assert.LessOrEqual(t, len(w.Ciphertext), root.MaxWrapped)
		}
		if key, err := parseDecrypted(secret.Copy(text)); err == nil {
			assert.Equal(t, root.KeySize, key.Len())
		}
		if key, err := parseKey(secret.Copy(text)); err == nil {
			assert.Positive(t, key.LatestVersion)
		}
		if s, err := parseSession(secret.Copy(text), time.Time{}); err == nil {
			assert.Positive(t, s.token.Len())
		}
		assert.GreaterOrEqual(t, retryAfter(string(text), time.Time{}), time.Duration(0))
		shown := printable(string(text))
		assert.LessOrEqual(t, len([]rune(shown)), maxQuoted+1)
		assert.NotContains(t, shown, "\n")
	})
}
