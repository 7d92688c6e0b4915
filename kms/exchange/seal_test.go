package exchange_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
)

func newRecipient(t testing.TB) *exchange.Recipient {
	t.Helper()
	r, err := exchange.NewRecipient()
	require.NoError(t, err)
	return r
}

func keyOf(t testing.TB, r *exchange.Recipient) exchange.RecipientKey {
	t.Helper()
	key, err := exchange.ParseRecipientKey(r.PublicKey())
	require.NoError(t, err)
	return key
}

func fullRelease() *exchange.Release {
	return &exchange.Release{
		ID: [32]byte{9}, Entry: []byte("entry"),
		Secrets: []exchange.ReleasedSecret{
			{Volume: "v1", UUID: "u1", Version: 2, Identity: [32]byte{1}, Key: secret.Copy([]byte("key one"))},
			{Volume: "v2", UUID: "u2", Version: 1, Resume: [16]byte{2}, Key: secret.Copy([]byte("key two")), Recovery: secret.Copy([]byte("recovery two")), RecoveryVersion: 2},
		},
	}
}

func TestReleaseReachesItsRecipient(t *testing.T) {
	recipient, statement, want := newRecipient(t), []byte("statement"), fullRelease()
	response, err := exchange.SealRelease(keyOf(t, recipient), statement, want)
	require.NoError(t, err)
	got, err := recipient.OpenRelease(statement, response)
	require.NoError(t, err)
	assert.Equal(t, want.ID, got.ID)
	assert.Equal(t, want.Entry, got.Entry)
	require.Len(t, got.Secrets, 2)
	for i := range got.Secrets {
		assert.True(t, want.Secrets[i].Key.Equal(got.Secrets[i].Key))
		assert.True(t, want.Secrets[i].Recovery.Equal(got.Secrets[i].Recovery))
		assert.Equal(t, want.Secrets[i].Volume, got.Secrets[i].Volume)
		assert.Equal(t, want.Secrets[i].UUID, got.Secrets[i].UUID)
		assert.Equal(t, want.Secrets[i].Version, got.Secrets[i].Version)
		assert.Equal(t, want.Secrets[i].Identity, got.Secrets[i].Identity)
		assert.Equal(t, want.Secrets[i].Resume, got.Secrets[i].Resume)
	}
	got.Wipe()
	assert.Zero(t, got.Secrets[0].Key.Len())
	assert.Zero(t, got.Secrets[1].Recovery.Len())
}

// TestAttack03ReleaseOpensForNobodyElse diverts a response to another recipient
// and to another statement.
func TestAttack03ReleaseOpensForNobodyElse(t *testing.T) {
	recipient, statement := newRecipient(t), []byte("statement")
	response, err := exchange.SealRelease(keyOf(t, recipient), statement, fullRelease())
	require.NoError(t, err)
	_, err = newRecipient(t).OpenRelease(statement, response)
	require.ErrorIs(t, err, exchange.ErrOpen)
	_, err = recipient.OpenRelease([]byte("another statement"), response)
	require.ErrorIs(t, err, exchange.ErrOpen)
}

func TestNoByteOfAResponseCanBeChanged(t *testing.T) {
	recipient, statement := newRecipient(t), []byte("statement")
	response, err := exchange.SealRelease(keyOf(t, recipient), statement, fullRelease())
	require.NoError(t, err)
	for i := 0; i < len(response); i += 7 {
		altered := bytes.Clone(response)
		altered[i] ^= 1
		_, err := recipient.OpenRelease(statement, altered)
		require.Error(t, err, "byte %d", i)
	}
	for _, altered := range [][]byte{nil, response[:len(response)-1], append(bytes.Clone(response), 0)} {
		_, err := recipient.OpenRelease(statement, altered)
		require.ErrorIs(t, err, exchange.ErrMalformed)
	}
}

func TestResponseLengthDoesNotTellTheVolumes(t *testing.T) {
	recipient := newRecipient(t)
	length := func(volumes int) int {
		r := &exchange.Release{}
		for i := range volumes {
			r.Secrets = append(r.Secrets, exchange.ReleasedSecret{Volume: fmt.Sprint(i), Key: secret.Copy(make([]byte, 32))})
		}
		response, err := exchange.SealRelease(keyOf(t, recipient), nil, r)
		require.NoError(t, err)
		return len(response)
	}
	assert.Equal(t, length(1), length(16))
	assert.Less(t, length(16), length(60))
}

func TestSealRefusesOutOfBounds(t *testing.T) {
	recipient := keyOf(t, newRecipient(t))
	for want, change := range map[string]func(*exchange.Release){
		"65 secrets":         func(r *exchange.Release) { r.Secrets = make([]exchange.ReleasedSecret, 65) },
		`volume "empty"`:     func(r *exchange.Release) { r.Secrets = []exchange.ReleasedSecret{{Volume: "empty"}} },
		`volume "v2"`:        func(r *exchange.Release) { r.Secrets[1].Recovery = secret.Copy(make([]byte, 1025)) },
		"entry has 65536":    func(r *exchange.Release) { r.Entry = make([]byte, 64<<10) },
		"encoding a release": func(r *exchange.Release) { r.Entry = make([]byte, 64<<10-1) },
	} {
		r := fullRelease()
		change(r)
		_, err := exchange.SealRelease(recipient, nil, r)
		require.ErrorContains(t, err, want)
	}
	_, err := exchange.ParseRecipientKey([]byte("short"))
	require.ErrorIs(t, err, exchange.ErrMalformed)
}

func newServiceKey(t testing.TB, curve elliptic.Curve) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	require.NoError(t, err)
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	require.NoError(t, err)
	return key, spki
}

// TestAttack31ForgedResponseIsRefusedBeforeItIsOpened plays the balancer that
// terminates TLS, or holds a stolen server certificate.
func TestAttack31ForgedResponseIsRefusedBeforeItIsOpened(t *testing.T) {
	key, spki := newServiceKey(t, elliptic.P256())
	mallory, mallorySPKI := newServiceKey(t, elliptic.P256())
	statement, response := []byte("statement"), []byte("response")
	pins := [][32]byte{exchange.Fingerprint([]byte("next")), exchange.Fingerprint(spki)}
	sign := func(key *ecdsa.PrivateKey, statement, response []byte) []byte {
		signature, err := exchange.SignResponse(key, statement, response)
		require.NoError(t, err)
		return signature
	}
	good := sign(key, statement, response)
	require.NoError(t, exchange.VerifyResponse(pins, spki, statement, response, good))

	forged := sign(mallory, statement, response)
	require.ErrorIs(t, exchange.VerifyResponse(pins, mallorySPKI, statement, response, forged), exchange.ErrServiceKey)
	require.ErrorIs(t, exchange.VerifyResponse(pins, spki, statement, response, forged), exchange.ErrSignature)
	require.ErrorIs(t, exchange.VerifyResponse(nil, spki, statement, response, good), exchange.ErrServiceKey)
	require.ErrorIs(t, exchange.VerifyResponse(pins, spki, []byte("another"), response, good), exchange.ErrSignature)
	require.ErrorIs(t, exchange.VerifyResponse(pins, spki, statement, []byte("another"), good), exchange.ErrSignature)
	require.ErrorIs(t, exchange.VerifyResponse(pins, spki, []byte("statementr"), []byte("esponse"), good), exchange.ErrSignature)

	_, p384 := newServiceKey(t, elliptic.P384())
	for _, other := range [][]byte{p384, []byte("not a key")} {
		err := exchange.VerifyResponse([][32]byte{exchange.Fingerprint(other)}, other, statement, response, good)
		require.ErrorIs(t, err, exchange.ErrServiceKey)
	}
}

func TestEnrollProofBindsSecretAndStatement(t *testing.T) {
	a, b := secret.Copy([]byte("a")), secret.Copy([]byte("b"))
	proof := exchange.EnrollProof(a, []byte("s"))
	assert.Equal(t, proof, exchange.EnrollProof(a, []byte("s")))
	assert.NotEqual(t, proof, exchange.EnrollProof(b, []byte("s")))
	assert.NotEqual(t, proof, exchange.EnrollProof(a, []byte("t")))
}
