package vault

import (
	"encoding/base64"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/clients/vault"
	"keywright.dev/kms/root"
	"keywright.dev/kms/root/roottest"
)

// wrapped is a front with a key, a root on it and something that it wrapped.
func wrapped(t *testing.T, auth string) (*front, *vault.Root, root.Wrapped) {
	t.Helper()
	f := started(t)
	f.makeKey(t, "keywright", nil)
	r := f.open(t, "keywright", auth)
	w, err := r.Wrap(t.Context(), roottest.Key(1), []byte("keyring/a@1"))
	require.NoError(t, err)
	return f, r, w
}

func opens(t *testing.T, r root.Root, w root.Wrapped) {
	t.Helper()
	got, err := r.Unwrap(t.Context(), w.Ciphertext, []byte("keyring/a@1"))
	require.NoError(t, err)
	require.True(t, roottest.Key(1).Equal(got))
}

func unwrapError(t *testing.T, r root.Root, w root.Wrapped) error {
	t.Helper()
	_, err := r.Unwrap(t.Context(), w.Ciphertext, []byte("keyring/a@1"))
	require.Error(t, err)
	return err
}

func configure(t *testing.T, f *front, data map[string]any) {
	t.Helper()
	f.operate(t, logical.UpdateOperation, "keys/keywright/config", data)
}

func TestWithdrawnVersionCanBeBroughtBack(t *testing.T) {
	f, r, w := wrapped(t, "approle")
	require.Equal(t, "1", w.Version)
	f.operate(t, logical.UpdateOperation, "keys/keywright/rotate", nil)
	configure(t, f, map[string]any{"min_decryption_version": 2})

	err := unwrapError(t, r, w)
	require.ErrorIs(t, err, root.ErrRefused)
	require.NotErrorIs(t, err, root.ErrDoesNotOpen)
	assert.ErrorContains(t, err, "version 1 of the key was withdrawn: its min_decryption_version is 2")
	assert.ErrorContains(t, err, "vault write team/transit/keys/keywright/config min_decryption_version=1")

	configure(t, f, map[string]any{"min_decryption_version": 1})
	opens(t, r, w)
}

func TestOtherTypesOfKeyAreRefused(t *testing.T) {
	for name, data := range map[string]map[string]any{
		"aes128-gcm96": {"type": "aes128-gcm96"},
		"rsa-2048":     {"type": "rsa-2048"},
		"ed25519":      {"type": "ed25519"},
		"derived":      {"derived": true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := started(t)
			f.makeKey(t, "keywright", data)
			r := f.open(t, "keywright", "token")
			// Without a context, Transit itself would encrypt under an RSA key.
			_, err := r.Wrap(t.Context(), roottest.Key(1), nil)
			require.ErrorIs(t, err, root.ErrRefused)
			assert.ErrorContains(t, err, "the key is "+map[bool]string{true: "derived", false: "of type " + name}[name == "derived"])
			_, err = r.Version(t.Context())
			require.ErrorIs(t, err, root.ErrRefused)
			assert.Zero(t, f.count(mount+"/encrypt/keywright"))
		})
	}
}

func TestMissingKeyIsNotMade(t *testing.T) {
	f := started(t)
	r := f.open(t, "gone", "token")
	_, err := r.Wrap(t.Context(), roottest.Key(1), nil)
	require.ErrorIs(t, err, root.ErrRefused)
	assert.ErrorContains(t, err, "there is no such key")
	keys := f.operate(t, logical.ListOperation, "keys", nil)
	assert.Empty(t, keys.Data["keys"])
}

// Transit's rewrap encrypts anew without the associated data, and so cannot even
// decrypt what has some. It is a no-op in no case.
func TestTransitRewrapLosesTheContext(t *testing.T) {
	f, _, w := wrapped(t, "token")
	resp, err := f.backend.HandleRequest(t.Context(), &logical.Request{
		Operation: logical.UpdateOperation, Path: "rewrap/keywright", Storage: f.storage,
		Data: map[string]any{
			"ciphertext": string(w.Ciphertext), "associated_data": base64.StdEncoding.EncodeToString([]byte("keyring/a@1")),
		},
	})
	require.Error(t, err)
	assert.ErrorContains(t, resp.Error(), "message authentication failed")
}

// Transit reads these as the same ciphertext; a row must have one form.
func TestOnlyTheCanonicalFormOpens(t *testing.T) {
	f, r, w := wrapped(t, "token")
	text := string(w.Ciphertext)
	for name, other := range map[string]string{
		"version 0":       strings.Replace(text, ":v1:", ":v0:", 1),
		"version 01":      strings.Replace(text, ":v1:", ":v01:", 1),
		"line feed":       text[:30] + "\n" + text[30:],
		"carriage return": text + "\r",
	} {
		t.Run(name, func(t *testing.T) {
			f.operate(t, logical.UpdateOperation, "decrypt/keywright", map[string]any{
				"ciphertext": other, "associated_data": base64.StdEncoding.EncodeToString([]byte("keyring/a@1")),
			})
			err := unwrapError(t, r, root.Wrapped{Ciphertext: []byte(other)})
			require.ErrorIs(t, err, root.ErrDoesNotOpen)
		})
	}
}

func TestCallsAreFew(t *testing.T) {
	f, r, w := wrapped(t, "approle")
	for range 3 {
		opens(t, r, w)
		_, err := r.Wrap(t.Context(), roottest.Key(1), nil)
		require.NoError(t, err)
	}
	assert.Equal(t, 1, f.count("auth/approle/login"))
	assert.Equal(t, 1, f.count(mount+"/keys/keywright"))
	assert.Equal(t, 4, f.count(mount+"/encrypt/keywright"))
	assert.Equal(t, 3, f.count(mount+"/decrypt/keywright"))
}

func TestSignsInAnewWhenItsTokenEnded(t *testing.T) {
	for _, auth := range []string{"approle", "kubernetes", "cert"} {
		t.Run(auth, func(t *testing.T) {
			f, r, w := wrapped(t, auth)
			f.revoke()
			opens(t, r, w)
			f.revoke()
			_, err := r.Wrap(t.Context(), roottest.Key(1), nil)
			require.NoError(t, err)
		})
	}
}

func TestTokenFileIsReadAgain(t *testing.T) {
	f, r, w := wrapped(t, "token")
	f.revoke()
	err := unwrapError(t, r, w)
	require.ErrorIs(t, err, root.ErrRefused)
	assert.ErrorContains(t, err, "the token has ended")
	f.signIn.write("token", f.newToken(0))
	opens(t, r, w)
}

func TestNewSecretIDIsRead(t *testing.T) {
	f, r, w := wrapped(t, "approle")
	f.revoke()
	f.signIn.write("secret-id", "00000000-8c4c-4ad5-a2f7-6e0d3b0f4a77")
	err := unwrapError(t, r, w)
	require.ErrorIs(t, err, root.ErrRefused)
	assert.ErrorContains(t, err, "signing in at auth/approle")
	assert.ErrorContains(t, err, "invalid role or secret ID")
	f.signIn.write("secret-id", secretID)
	opens(t, r, w)
}

func TestSaysWhichCapabilityIsMissing(t *testing.T) {
	f, r, w := wrapped(t, "kubernetes")
	f.set(func() { f.policy = f.policy.without("update") })
	err := unwrapError(t, r, w)
	require.ErrorIs(t, err, root.ErrRefused)
	assert.ErrorContains(t, err, "allows update on team/transit/decrypt/keywright")
	_, err = r.Version(t.Context())
	require.NoError(t, err)

	f.set(func() { f.policy = shippedPolicy(t).without("read") })
	_, err = r.Version(t.Context())
	require.ErrorIs(t, err, root.ErrRefused)
	assert.ErrorContains(t, err, "allows read on team/transit/keys/keywright")
}

func TestSealedIsUnavailable(t *testing.T) {
	f, r, w := wrapped(t, "cert")
	f.set(func() { f.sealed = true })
	err := unwrapError(t, r, w)
	require.ErrorIs(t, err, root.ErrUnavailable)
	assert.ErrorContains(t, err, "Vault is sealed")
	f.set(func() { f.sealed = false })
	opens(t, r, w)
}

func TestUntrustedCertificateIsRefused(t *testing.T) {
	f, _, w := wrapped(t, "token")
	other := filepath.Join(t.TempDir(), "ca.pem")
	writeCertificate(t, other, f.signIn.clientCert)
	uri := strings.Replace(f.uri("keywright", "token"), f.ca, other, 1)
	r, err := vault.Open(t.Context(), uri, options())
	require.NoError(t, err)
	err = unwrapError(t, r, w)
	require.ErrorIs(t, err, root.ErrRefused)
	assert.ErrorContains(t, err, "certificate")
}
