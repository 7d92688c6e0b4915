package luks_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/unlock/luks"
)

// underImage is the header under reencryption that cryptsetup made.
func underImage(t testing.TB) image {
	t.Helper()
	b, err := os.ReadFile("testdata/headers/reencrypting.img")
	require.NoError(t, err)
	text, _, _ := bytes.Cut(b[4096:headerSize], []byte{0})
	return image{json: string(text), seqid: [2]uint64{7, 7}}
}

func (i image) under() (*luks.Under, error) {
	h, err := i.parse()
	if err != nil {
		return nil, err
	}
	return h.ValidateUnder()
}

func TestGoldenUnder(t *testing.T) {
	u, err := underImage(t).under()
	require.NoError(t, err)
	assert.False(t, u.All())
	_, err = u.Ended()
	require.ErrorContains(t, err, "not under the new volume key")
	for number, i := range map[string]luks.Identity{"0": u.From(), "1": u.To()} {
		assert.Len(t, i.Digests, 1)
		assert.Equal(t, []string{"0"}, i.Digests[number].Segments)
		assert.Len(t, i.Segments, 1)
		assert.Equal(t, "2097152", i.Segments["0"].Offset)
	}
	require.ErrorContains(t, u.Check(luks.Table{Name: "data"}), "not read from a device")
}

// all puts the data under the new volume key, as it is before the header is ended.
func (i image) all(t testing.TB) image {
	return i.replace(t, `"segments":["0","1"]`, `"segments":["1"]`).replace(t, `"segments":["2"]`, `"segments":["0","2"]`)
}

func TestUnderEnds(t *testing.T) {
	u, err := underImage(t).all(t).under()
	require.NoError(t, err)
	require.True(t, u.All())
	ended, err := u.Ended()
	require.NoError(t, err)
	assert.Equal(t, u.To(), ended.Identity())
	assert.False(t, ended.Header().Reencrypting())
	assert.EqualValues(t, 8, ended.Header().SequenceID)
	assert.Len(t, ended.Inventory().Keyslots, 1)
	assert.Equal(t, 1, ended.Inventory().Keyslots[0].ID)
	require.NoError(t, ended.OpenCopy(), "luks.go reads it")
}

// TestAttack12ForgedHeadersUnderReencryption has reencryptions that would have data in
// the clear, under a key of somebody else, or taken for what it is not.
func TestAttack12ForgedHeadersUnderReencryption(t *testing.T) {
	final := `"flags":["backup-final"]`
	for name, c := range map[string]struct {
		from, to string
		code     luks.Code
	}{
		"metadata without a digest": {`"online-reencrypt-v2"`, `"online-reencrypt"`, luks.CodeRequirements},
		"a later version":           {`"online-reencrypt-v2"`, `"online-reencrypt-v3"`, luks.CodeRequirements},
		"another requirement":       {`"online-reencrypt-v2"`, `"online-reencrypt-v2","opal"`, luks.CodeRequirements},
		"decryption":                {`"mode":"reencrypt"`, `"mode":"decrypt"`, luks.CodeReencryption},
		"encryption":                {`"mode":"reencrypt"`, `"mode":"encrypt"`, luks.CodeReencryption},
		"data is shifted":           {`"direction":"forward"`, `"direction":"backward"`, luks.CodeReencryption},
		"no keyslot of it":          {`"type":"reencrypt","key_size":1`, `"type":"other","key_size":1`, luks.CodeReencryption},
		"data in the clear":         {`"segments":{"0":{"type":"crypt"`, `"segments":{"0":{"type":"linear"`, luks.CodeSegmentType},
		"null cipher":               {`"encryption":"aes-xts-plain64","sector_size":4096},"1":{"type":"crypt"`, `"encryption":"cipher_null-ecb","sector_size":4096},"1":{"type":"crypt"`, luks.CodeSegmentNullCipher},
		"becomes another cipher":    {`"encryption":"aes-xts-plain64","sector_size":4096,` + final, `"encryption":"aes-cbc-plain64","sector_size":4096,` + final, luks.CodeSegmentCipher},
		"becomes another place":     {`"2":{"type":"crypt","offset":"2097152"`, `"2":{"type":"crypt","offset":"4194304"`, luks.CodeReencryption},
		"becomes other sectors":     {`"sector_size":4096,` + final, `"sector_size":512,` + final, luks.CodeReencryption},
		"becomes nothing":           {final, `"flags":[]`, luks.CodeReencryption},
		"becomes two things":        {`"flags":["backup-previous"]`, final, luks.CodeSegmentFlags},
		"a moved segment":           {final, `"flags":["backup-moved-segment"]`, luks.CodeSegmentFlags},
		"a part under no key":       {`"segments":["0","1"]`, `"segments":["1"]`, luks.CodeDigestBinding},
		"a part under a third key":  {`"segments":[],`, `"segments":["0"],`, luks.CodeDigestBinding},
		"the final one under both":  {`"segments":["0","1"]`, `"segments":["0","1","2"]`, luks.CodeDigestBinding},
		"a part that is elsewhere":  {`"segments":{"0":{"type":"crypt","offset":"2097152"`, `"segments":{"0":{"type":"crypt","offset":"3145728"`, luks.CodeSegmentRange},
		"a part with another tweak": {`"size":"dynamic","iv_tweak":"0","encryption":"aes-xts-plain64","sector_size":4096},`, `"size":"dynamic","iv_tweak":"8","encryption":"aes-xts-plain64","sector_size":4096},`, luks.CodeSegmentRange},
		"a part that is not all":    {`"segments":{"0":{"type":"crypt","offset":"2097152","size":"dynamic"`, `"segments":{"0":{"type":"crypt","offset":"2097152","size":"1048576"`, luks.CodeSegmentRange},
		"a digest that matches all": {`"digest":"/Kmao9BDarfHtCgp8ijOiU+/QbEC4AhRjYcNhovdcNQ="`, `"digest":""`, luks.CodeDigestEmpty},
		"sizes that cannot be":      {`"keyslots_size":"1048576"`, `"keyslots_size":"1048577"`, luks.CodeConfig},
	} {
		t.Run(name, func(t *testing.T) {
			i := underImage(t)
			require.Contains(t, i.json, c.from)
			i.json = strings.Replace(i.json, c.from, c.to, 1)
			_, err := i.under()
			requireRefusal(t, err, c.code)
		})
	}
	h, err := baseImage(t).parse()
	require.NoError(t, err)
	_, err = h.ValidateUnder()
	requireRefusal(t, err, luks.CodeRequirements)
}

// FuzzUnder feeds JSON areas: what validates has both identities, and ends in a header
// that validates and is what it said.
func FuzzUnder(f *testing.F) {
	f.Add([]byte(underImage(f).json))
	f.Add([]byte(underImage(f).all(f).json))
	f.Add([]byte(baseJSON(f)))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > headerSize-4096 {
			return
		}
		u, err := image{json: string(text), seqid: [2]uint64{1, 1}}.under()
		if err != nil {
			var refusal *luks.Refusal
			require.ErrorAs(t, err, &refusal)
			return
		}
		require.NotEqual(t, u.From(), u.To())
		u.OwnTokens()
		if ended, err := u.Ended(); err == nil {
			require.Equal(t, u.To(), ended.Identity())
		}
	})
}
