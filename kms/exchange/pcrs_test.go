package exchange_test

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/exchange"
)

func TestSelectionsAgree(t *testing.T) {
	want := []uint{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15}
	assert.Equal(t, want, exchange.Selection())
	bitmap := exchange.SelectionBitmap()
	assert.Equal(t, tpm2.PCClientCompatible.PCRs(want...), bitmap[:])
	assert.Equal(t, tpm2.Marshal(exchange.SelectionList()), exchange.MarshaledSelection())
	assert.Equal(t, "00000001000b03fffb00", hex.EncodeToString(exchange.MarshaledSelection()))
}

func TestPCRValues(t *testing.T) {
	var values exchange.PCRValues
	for i := range values {
		values[i] = [32]byte(bytes.Repeat([]byte{byte(i)}, 32))
	}
	digest := values.CompositeDigest()
	assert.Equal(t, "c3b1181ac20fa208f00ee86a48a9586a82e31198ec71b322693f50f847156e06", hex.EncodeToString(digest[:]))

	for i, pcr := range exchange.Selection() {
		value, ok := values.Value(pcr)
		assert.True(t, ok)
		assert.Equal(t, values[i], value, "PCR %d", pcr)
	}
	for _, pcr := range []uint{10, 16, 23, 1 << 40} {
		_, ok := values.Value(pcr)
		assert.False(t, ok, "PCR %d", pcr)
		assert.False(t, values.Set(pcr, [32]byte{1}))
	}
	assert.True(t, values.Set(15, [32]byte{0xaa}))
	assert.Equal(t, [32]byte{0xaa}, values[14])
}

func TestParsePCRValuesRefusesOtherLengths(t *testing.T) {
	for _, size := range []int{0, 479, 481, 512} {
		_, err := exchange.ParsePCRValues(make([]byte, size))
		require.ErrorIs(t, err, exchange.ErrMalformed)
	}
}

func TestPCR15Events(t *testing.T) {
	id := make([]byte, 32)
	for i := range id {
		id[i] = byte(i)
	}
	release := exchange.ReleaseEvent(id)
	assert.Equal(t, "04dfc2307ff9f61ba258b06ba20b2d4fe416b422508153ed8d773190c4304516", hex.EncodeToString(release[:]))
	none := exchange.NoReleaseEvent()
	assert.Equal(t, "eb2bb5a1f6b0cb9377be1430997223a1f28d3bf470e93c8a335757c093ba2132", hex.EncodeToString(none[:]))
	after := exchange.Extend([32]byte{}, none)
	assert.Equal(t, "1ef2cab8b1428ffa5576e0ca4811d6789502b7dbb6b7a1ea76b0e19b241fe8e3", hex.EncodeToString(after[:]))
}

func FuzzParsePCRValues(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		values, err := exchange.ParsePCRValues(data)
		if err != nil {
			require.ErrorIs(t, err, exchange.ErrMalformed)
			return
		}
		require.Equal(t, data, values.Marshal())
	})
}
