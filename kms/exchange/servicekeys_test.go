package exchange_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/exchange"
)

func TestServiceKeysAreSignedForWhoAsked(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	require.NoError(t, err)
	pin, nonce := exchange.Fingerprint(spki), [32]byte{1}
	list := [][32]byte{{7}, pin}
	signature, err := exchange.SignServiceKeys(key, nonce, list)
	require.NoError(t, err)
	require.NoError(t, exchange.VerifyServiceKeys(pin, spki, nonce, list, signature))
	require.ErrorIs(t, exchange.VerifyServiceKeys([32]byte{7}, spki, nonce, list, signature), exchange.ErrServiceKey)
	require.ErrorIs(t, exchange.VerifyServiceKeys(pin, spki, [32]byte{2}, list, signature), exchange.ErrSignature)
	require.ErrorIs(t, exchange.VerifyServiceKeys(pin, spki, nonce, [][32]byte{pin, {7}}, signature), exchange.ErrSignature, "the order counts")
	require.ErrorIs(t, exchange.VerifyServiceKeys(pin, []byte("no key"), nonce, list, signature), exchange.ErrServiceKey)
}

func FuzzFingerprints(f *testing.F) {
	f.Add(bytes.Repeat([]byte{1}, 64), 32)
	f.Add([]byte{}, 1)
	f.Add(bytes.Repeat([]byte{1}, 33), 31)
	f.Add(bytes.Repeat([]byte{1}, 32*5), 32)
	f.Fuzz(func(t *testing.T, data []byte, size int) {
		if size < 1 {
			return
		}
		var list [][]byte
		for ; len(data) > 0; data = data[min(size, len(data)):] {
			list = append(list, data[:min(size, len(data))])
		}
		keys, err := exchange.Fingerprints(list)
		if err != nil {
			require.ErrorIs(t, err, exchange.ErrMalformed)
			return
		}
		require.LessOrEqual(t, len(keys), exchange.MaxServiceKeys)
		for i, k := range keys {
			assert.Equal(t, list[i], k[:])
		}
	})
}
