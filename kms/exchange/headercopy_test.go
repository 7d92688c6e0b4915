package exchange_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
)

func headerKey(fill byte) secret.Bytes {
	return secret.New(bytes.Repeat([]byte{fill}, exchange.HeaderKeySize))
}

func TestHeaderCopyOpensForItsRekeyAlone(t *testing.T) {
	header := []byte("LUKS\xba\xbe and so on")
	sealed, err := exchange.SealHeaderCopy(headerKey(1), "v1", 2, header)
	require.NoError(t, err)
	assert.NotContains(t, string(sealed), "LUKS")
	opened, err := exchange.OpenHeaderCopy(headerKey(1), "v1", 2, sealed)
	require.NoError(t, err)
	assert.Equal(t, header, opened)

	altered := bytes.Clone(sealed)
	altered[len(altered)/2] ^= 1
	for name, open := range map[string]func() ([]byte, error){
		"another key":     func() ([]byte, error) { return exchange.OpenHeaderCopy(headerKey(2), "v1", 2, sealed) },
		"another volume":  func() ([]byte, error) { return exchange.OpenHeaderCopy(headerKey(1), "v2", 2, sealed) },
		"another version": func() ([]byte, error) { return exchange.OpenHeaderCopy(headerKey(1), "v1", 3, sealed) },
		"altered":         func() ([]byte, error) { return exchange.OpenHeaderCopy(headerKey(1), "v1", 2, altered) },
		"cut":             func() ([]byte, error) { return exchange.OpenHeaderCopy(headerKey(1), "v1", 2, sealed[:20]) },
		"empty":           func() ([]byte, error) { return exchange.OpenHeaderCopy(headerKey(1), "v1", 2, nil) },
		"too long": func() ([]byte, error) {
			return exchange.OpenHeaderCopy(headerKey(1), "v1", 2, make([]byte, exchange.MaxHeaderCopy+1))
		},
	} {
		_, err := open()
		require.ErrorIs(t, err, exchange.ErrHeaderCopy, name)
	}
	_, err = exchange.OpenHeaderCopy(secret.New(make([]byte, 16)), "v1", 2, sealed)
	require.ErrorContains(t, err, "16 bytes, want 32")
}

func TestHeaderCopyHasABound(t *testing.T) {
	_, err := exchange.SealHeaderCopy(headerKey(1), "v", 1, make([]byte, exchange.MaxHeaderCopy))
	require.ErrorContains(t, err, "can be kept")
}

// FuzzOpenHeaderCopy holds that nothing opens but what was sealed.
func FuzzOpenHeaderCopy(f *testing.F) {
	sealed, err := exchange.SealHeaderCopy(headerKey(1), "v", 1, []byte("header"))
	require.NoError(f, err)
	f.Add(sealed)
	f.Add(sealed[:27])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		opened, err := exchange.OpenHeaderCopy(headerKey(1), "v", 1, data)
		if bytes.Equal(data, sealed) {
			require.NoError(t, err)
			assert.Equal(t, "header", string(opened))
			return
		}
		require.ErrorIs(t, err, exchange.ErrHeaderCopy)
	})
}
