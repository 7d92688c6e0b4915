package luks_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/unlock/luks"
)

func TestFreeNumbers(t *testing.T) {
	slot, err := withToken(t, goodToken).FreeSlot()
	require.NoError(t, err)
	assert.Equal(t, 2, slot)
	slot, err = withToken(t, token("", "2")).FreeSlot()
	require.NoError(t, err)
	assert.Equal(t, 3, slot, "2 is intended")
	slot, err = withToken(t, goodToken).LastFreeSlot()
	require.NoError(t, err)
	assert.Equal(t, 31, slot)
	slot, err = withToken(t, token("", "31")).LastFreeSlot()
	require.NoError(t, err)
	assert.Equal(t, 30, slot, "31 is intended")
	number, err := withToken(t, goodToken).FreeToken()
	require.NoError(t, err)
	assert.Equal(t, 1, number)

	many := goodToken
	for n := 4; n < 32; n++ {
		many += fmt.Sprintf(`,"%d":{"type":"x","keyslots":[]}`, n)
	}
	many += `,"1":{"type":"x","keyslots":[]},"2":{"type":"x","keyslots":[]}`
	_, err = withToken(t, many).FreeToken()
	assert.ErrorIs(t, err, luks.ErrFull)
}

// The base header has two keyslots of 258,048 bytes from 32,768 on.
func TestRoomForAKeyslot(t *testing.T) {
	for name, c := range map[string]struct {
		from, to string
		full     bool
	}{
		"as it is":           {"16744448", "16744448", false},
		"third fits exactly": {"16744448", "774144", false},
		"page too few":       {"16744448", "770048", true},
		"room in the middle": {`"290816"`, `"548864"`, false},
	} {
		t.Run(name, func(t *testing.T) {
			i := baseImage(t).replace(t, c.from, c.to)
			if name == "room in the middle" {
				i = i.replace(t, "16744448", "774144")
			}
			v, err := i.validate()
			require.NoError(t, err)
			if c.full {
				require.ErrorIs(t, v.Room(), luks.ErrNoRoom)
				return
			}
			require.NoError(t, v.Room())
		})
	}
}

// A keyslot that anything else could have made is never taken for ours.
func TestMadeAsOurs(t *testing.T) {
	unnamed := func(from, to string) *luks.Volume {
		i := baseImage(t).replace(t, `"keyslots":["1"],"version":1`, `"keyslots":[],"version":1`)
		v, err := i.replace(t, from, to).validate()
		require.NoError(t, err)
		return v
	}
	ours := unnamed(`"keyslots":["0"],"jwe"`, `"keyslots":[],"jwe"`)
	assert.True(t, ours.MadeAsOurs(1))
	assert.False(t, ours.MadeAsOurs(0), "argon2id")
	assert.False(t, ours.MadeAsOurs(2), "does not exist")
	assert.False(t, unnamed(`"keyslots":["0"],"jwe"`, `"keyslots":["1"],"jwe"`).MadeAsOurs(1), "a token names it")
	assert.False(t, unnamed(`"hash":"sha256","iterations":1000,"salt":"AQ`, `"hash":"sha256","iterations":1001,"salt":"AQ`).MadeAsOurs(1))
	assert.False(t, unnamed(`"keyslots":["0","1"],"segments"`, `"keyslots":["0"],"segments"`).MadeAsOurs(1), "of another key")
}

func TestHeaderCopyHoldsWhatIsInUse(t *testing.T) {
	image := baseImage(t).bytes()
	device := append(image, bytes.Repeat([]byte{'x'}, 16744448+4096)...)
	h, err := luks.Parse(bytes.NewReader(device), deviceSize)
	require.NoError(t, err)
	v, err := h.Validate()
	require.NoError(t, err)
	got, err := io.ReadAll(v.HeaderCopy())
	require.NoError(t, err)
	require.Len(t, got, 2*headerSize+16744448)
	assert.True(t, bytes.Equal(device[:2*headerSize], got[:2*headerSize]), "both copies of the metadata")
	used := bytes.Count(got[2*headerSize:], []byte{'x'})
	assert.Equal(t, 2*258048, used, "the areas of two keyslots")
	assert.Equal(t, len(got)-2*headerSize-used, bytes.Count(got[2*headerSize:], []byte{0}))
}

// What a rekey that was cut leaves: the keyslot that its token announces is ours,
// the one that a person put where another token announces it is not.
func TestGoldenHeaderOfARekey(t *testing.T) {
	v := goldenVolume(t, "rekeying")
	var versions []uint32
	for _, token := range v.OwnTokens() {
		versions = append(versions, token.Version)
	}
	assert.Equal(t, []uint32{1, 2, 3}, versions)
	assert.True(t, v.MadeAsOurs(31))
	assert.False(t, v.MadeAsOurs(1))
	assert.False(t, v.MadeAsOurs(2), "it is assigned")
	require.ErrorIs(t, v.Room(), luks.ErrNoRoom)
}
