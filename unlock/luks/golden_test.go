package luks_test

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/unlock/luks"
)

var update = flag.Bool("update", false, "rewrite what is expected of testdata/headers")

// golden is what is expected of a header that cryptsetup made.
type golden struct {
	Refused   luks.Code       `json:"refused,omitzero"`
	Digest    string          `json:"identity_digest,omitzero"`
	Identity  *luks.Identity  `json:"identity,omitzero"`
	Inventory *luks.Inventory `json:"inventory,omitzero"`
}

func judge(t *testing.T, path string) golden {
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	// The files hold the metadata alone, of volumes of 8 MiB.
	h, err := luks.Parse(f, 8<<20)
	if err != nil {
		return golden{Refused: codeOf(t, err)}
	}
	v, err := h.Validate()
	if err != nil {
		return golden{Refused: codeOf(t, err)}
	}
	identity, inventory := v.Identity(), v.Inventory()
	sum, err := identity.Digest()
	require.NoError(t, err)
	return golden{Digest: hex.EncodeToString(sum[:]), Identity: &identity, Inventory: &inventory}
}

func codeOf(t *testing.T, err error) luks.Code {
	var refusal *luks.Refusal
	require.ErrorAs(t, err, &refusal)
	return refusal.Code
}

func TestGoldenHeaders(t *testing.T) {
	images, err := filepath.Glob("testdata/headers/*.img")
	require.NoError(t, err)
	require.Len(t, images, 11)
	for _, path := range images {
		t.Run(filepath.Base(path), func(t *testing.T) {
			got, err := json.MarshalIndent(judge(t, path), "", "  ")
			require.NoError(t, err)
			expected := strings.TrimSuffix(path, ".img") + ".json"
			if *update {
				require.NoError(t, os.WriteFile(expected, append(got, '\n'), 0o644))
			}
			want, err := os.ReadFile(expected)
			require.NoError(t, err)
			assert.JSONEq(t, string(want), string(got))
		})
	}
}

// A volume of 8 MiB whose device is smaller now is refused, not truncated.
func TestGoldenHeaderOnATooSmallDevice(t *testing.T) {
	f, err := os.Open("testdata/headers/aes256-4096.img")
	require.NoError(t, err)
	defer f.Close()
	h, err := luks.Parse(f, 2<<20)
	require.NoError(t, err)
	_, err = h.Validate()
	requireRefusal(t, err, luks.CodeSegmentRange)
}

// goldenHeader reads a header that cryptsetup made, of a volume of 8 MiB.
func goldenHeader(t *testing.T, name string) *luks.Header {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", "headers", name+".img"))
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	h, err := luks.Parse(f, 8<<20)
	require.NoError(t, err)
	return h
}

func goldenVolume(t *testing.T, name string) *luks.Volume {
	t.Helper()
	v, err := goldenHeader(t, name).Validate()
	require.NoError(t, err)
	return v
}

// A reencryption that was cut before it began moves nothing that a boot looks at.
func TestGoldenHeaderOfAReencryptionThatDidNotBegin(t *testing.T) {
	v := goldenVolume(t, "reencrypt-cut")
	assert.Equal(t, []int{2}, v.OwnSlots("vol-a"))
	assert.Equal(t, []int{1}, v.Leftover())
	assert.Len(t, v.Identity().Digests, 1)
	assert.False(t, v.Inventory().Tokens[0].Unreadable)
	assert.Empty(t, goldenVolume(t, "enrolled").Leftover())
	assert.Empty(t, goldenVolume(t, "rekeying").Leftover())
}

func TestGoldenHeaderUnderReencryption(t *testing.T) {
	for name, want := range map[string]bool{"reencrypting": true, "reencrypt-cut": false, "reencrypted": false, "enrolled": false} {
		assert.Equal(t, want, goldenHeader(t, name).Reencrypting(), name)
	}
}
