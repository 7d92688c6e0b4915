package quorum

import (
	"encoding/hex"
	"testing"

	"filippo.io/age/armor"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/secret"
)

func FuzzShare(f *testing.F) {
	for _, v := range loadVectors(f).Shares {
		for _, text := range v.Given {
			f.Add(unhex(f, text))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if s, err := decodeShare(data); err == nil {
			again := encodeShare(s.set, s.number, s.value)
			assert.Equal(t, data, again.Expose(), "what parses marshals to the same")
			assert.Equal(t, cap(again.Expose()), again.Len(), "no copy of the value was left behind")
		}
		Combine(nil, []Given{{"a file", secret.Copy(data)}}).Wipe()
		// Behind a checksum that fits.
		Combine(nil, []Given{{"a file", secret.Copy(append(append([]byte{}, data...), checksum(data)...))}}).Wipe()
	})
}

func FuzzSet(f *testing.F) {
	for _, v := range loadVectors(f).Shares {
		for _, text := range v.Wanted {
			f.Add(unhex(f, text))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := parseSet(data)
		if err != nil {
			return
		}
		again := set
		require.NoError(t, again.encode())
		assert.Equal(t, data, again.encoded)
		assert.True(t, printable(set.Subject()))
		assert.Len(t, set.ID(), 16)
	})
}

func FuzzRow(f *testing.F) {
	for _, v := range loadVectors(f).Rows {
		f.Add(unhex(f, v.Row))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		row, err := ParseRow(data)
		if err != nil {
			require.ErrorIs(t, err, ErrMalformed)
			return
		}
		assert.Len(t, row.sealed, len(row.Set.Custodians))
		again, err := row.encode(vectorKey())
		require.NoError(t, err)
		assert.Equal(t, data[:len(data)-32], again[:len(again)-32])
	})
}

func FuzzShareFile(f *testing.F) {
	f.Add("# a head\n\n# keyring/a@1\n" + armor.Header + "\nYWdl\n" + armor.Footer + "\n")
	f.Add(armor.Header + "\r\n!\r\n" + armor.Footer)
	f.Add("Dear all")
	f.Add("#\n# \x1b\n" + armor.Header + "\n" + armor.Header + "\n" + armor.Footer)
	f.Fuzz(func(t *testing.T, text string) {
		blocks, err := readBlocks(text)
		if err != nil {
			return
		}
		var whole []block
		for _, b := range blocks {
			assert.NotEmpty(t, b.name)
			if b.sealed != nil {
				whole = append(whole, b)
			}
		}
		written, err := writeBlocks(nil, whole)
		require.NoError(t, err)
		if len(whole) > 0 {
			again, err := readBlocks(written)
			require.NoError(t, err)
			assert.Equal(t, whole, again, hex.EncodeToString([]byte(text)))
		}
	})
}
