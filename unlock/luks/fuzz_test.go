package luks_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/unlock/luks"
)

// FuzzMetadata feeds JSON areas under a good checksum: what validates has an
// identity and an inventory that are well-formed and stay what they are.
func FuzzMetadata(f *testing.F) {
	f.Add([]byte(baseJSON(f)))
	for _, v := range vectors(f) {
		f.Add([]byte(baseImage(f).replace(f, v.From, v.To).json))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > headerSize-4096 {
			return
		}
		v, err := image{json: string(text), seqid: [2]uint64{1, 1}}.validate()
		if err != nil {
			var refusal *luks.Refusal
			require.ErrorAs(t, err, &refusal)
			return
		}
		canonical, err := v.Identity().Canonical()
		require.NoError(t, err)
		var identity luks.Identity
		require.NoError(t, json.Unmarshal(canonical, &identity))
		again, err := identity.Canonical()
		require.NoError(t, err)
		assert.Equal(t, string(canonical), string(again))
		_, err = json.Marshal(v.Inventory())
		require.NoError(t, err)
		require.NoError(t, v.OpenCopy(), "luks.go reads what validates")
	})
}

// FuzzHeader feeds the fields of both binary headers, under good checksums and
// under none, above metadata that is good.
func FuzzHeader(f *testing.F) {
	const fields = 512
	good := baseImage(f).bytes()
	f.Add(good[:fields], good[headerSize:headerSize+fields], true)
	f.Add(good[:fields], []byte{}, false)
	f.Fuzz(func(t *testing.T, first, second []byte, checksums bool) {
		overlay := func(primary, secondary []byte) {
			copy(primary, first[:min(len(first), fields)])
			copy(secondary, second[:min(len(second), fields)])
		}
		i := image{json: string(good[4096:headerSize])}
		i.patch = overlay
		if !checksums {
			i.patch, i.spoil = nil, overlay
		}
		v, err := i.validate()
		if err != nil {
			var refusal *luks.Refusal
			require.ErrorAs(t, err, &refusal)
			return
		}
		assert.Len(t, v.Header().UUID, 36)
		require.NoError(t, v.OpenCopy(), "luks.go reads what validates")
	})
}

// FuzzToken: what parses is written again, and parses to the same token.
func FuzzToken(f *testing.F) {
	f.Add([]byte(goodToken))
	f.Add([]byte(`{"slot":"0","type":"keywright","keyslots":[],"version":1,"volume":"v","resume":"r","secret":3}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		token, err := luks.ParseToken(text)
		if err != nil {
			return
		}
		encoded, err := token.Encode()
		require.NoError(t, err)
		again, err := luks.ParseToken(encoded)
		require.NoError(t, err)
		assert.Equal(t, token, again)
	})
}
