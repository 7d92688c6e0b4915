package luks_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
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
		v.Orphans()
	})
}

// FuzzHeader feeds raw bytes of both copies.
func FuzzHeader(f *testing.F) {
	f.Add(baseImage(f).bytes())
	images, err := filepath.Glob("testdata/headers/*.img")
	require.NoError(f, err)
	for _, path := range images {
		b, err := os.ReadFile(path)
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := luks.Parse(bytes.NewReader(b), uint64(len(b)))
		if err != nil {
			var refusal *luks.Refusal
			require.ErrorAs(t, err, &refusal)
			return
		}
		_, _ = h.Validate()
	})
}

// FuzzToken: what parses is written again, and parses to the same token.
func FuzzToken(f *testing.F) {
	f.Add([]byte(goodToken))
	f.Add([]byte(`{"slot":"0","type":"keywright","keyslots":[],"version":1,"volume":"v","resume":"r"}`))
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
