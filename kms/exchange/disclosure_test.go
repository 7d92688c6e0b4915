package exchange_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
)

func TestDisclosureReachesItsRecipientAlone(t *testing.T) {
	own, other := newRecipient(t), newRecipient(t)
	statement := func(volume string, version uint32, r *exchange.Recipient) []byte {
		s, err := exchange.DisclosureStatement(volume, version, r.PublicKey())
		require.NoError(t, err)
		return s
	}
	asked := statement("volume-1", 2, own)
	sealed, err := exchange.SealDisclosure(keyOf(t, own), asked, secret.Copy([]byte("recovery key")))
	require.NoError(t, err)
	assert.NotContains(t, string(sealed), "recovery key")
	key, err := own.OpenDisclosure(asked, sealed)
	require.NoError(t, err)
	assert.Equal(t, "recovery key", string(key.Expose()))

	_, err = own.OpenDisclosure(statement("volume-2", 2, own), sealed)
	require.ErrorIs(t, err, exchange.ErrDisclosure, "of another volume")
	_, err = own.OpenDisclosure(statement("volume-1", 0, own), sealed)
	require.ErrorIs(t, err, exchange.ErrDisclosure, "of another version")
	_, err = other.OpenDisclosure(asked, sealed)
	require.ErrorIs(t, err, exchange.ErrDisclosure, "for another recipient")
	_, err = own.OpenDisclosure(asked, append(sealed[:len(sealed)-1:len(sealed)-1], sealed[len(sealed)-1]^1))
	require.ErrorIs(t, err, exchange.ErrDisclosure, "altered")
	for _, short := range [][]byte{nil, {1}, sealed[:1120], sealed[:len(sealed)-1]} {
		_, err = own.OpenDisclosure(asked, short)
		require.ErrorIs(t, err, exchange.ErrDisclosure, "cut off")
	}
	_, err = exchange.DisclosureStatement(strings.Repeat("v", 1<<16), 0, own.PublicKey())
	require.Error(t, err)
}
