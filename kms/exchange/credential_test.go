package exchange_test

import (
	"crypto/rand"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
)

// That a TPM opens the credential is tested in package hsm/tpm.
func TestMakeCredential(t *testing.T) {
	keys := recordedKeys(t)
	ak, err := exchange.CheckAK(keys["ak"].public(t))
	require.NoError(t, err)
	sizes := map[exchange.EKTemplate]int{
		exchange.EKRSA2048: 256,
		exchange.EKP256:    2 * (2 + 32),
		exchange.EKP384:    2 * (2 + 48),
	}
	for template, size := range sizes {
		ek, err := exchange.CheckEK(keys[string(template)].public(t))
		require.NoError(t, err)
		credential := secret.New([]byte("0123456789abcdef0123456789abcdef"))
		blob, encrypted, err := exchange.MakeCredential(rand.Reader, ek, ak, credential)
		require.NoError(t, err)
		assert.Len(t, encrypted, size)
		assert.NotContains(t, string(blob), string(credential.Expose()))
		again, _, err := exchange.MakeCredential(rand.Reader, ek, ak, credential)
		require.NoError(t, err)
		assert.NotEqual(t, blob, again)
	}
}

func TestMakeCredentialRefusesOtherSizes(t *testing.T) {
	keys := recordedKeys(t)
	ek, err := exchange.CheckEK(keys["ecc-nist-p256"].public(t))
	require.NoError(t, err)
	for _, size := range []int{0, 31, 33} {
		_, _, err := exchange.MakeCredential(rand.Reader, ek, exchange.AK{}, secret.New(make([]byte, size)))
		require.ErrorContains(t, err, "want 32")
	}
	_, _, err = exchange.MakeCredential(rand.Reader, exchange.EK{}, exchange.AK{}, secret.New(make([]byte, 32)))
	require.Error(t, err)
}
