package luks_test

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/unlock/luks"
)

func identityOf(t testing.TB, i image) string {
	v, err := i.validate()
	require.NoError(t, err)
	sum, err := v.Identity().Digest()
	require.NoError(t, err)
	return hex.EncodeToString(sum[:])
}

// The canonical form and its digest are what the service stores: they must never
// change under version 1 of the format.
func TestIdentityIsPinned(t *testing.T) {
	v, err := baseImage(t).validate()
	require.NoError(t, err)
	canonical, err := v.Identity().Canonical()
	require.NoError(t, err)
	sameText(t, `{"digests":{"0":{"digest":"AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=",`+
		`"hash":"sha256","iterations":1000,"salt":"AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=","segments":["0"],"type":"pbkdf2"}},`+
		`"format":"keywright/luks-identity/v1","requirements":[],`+
		`"segments":{"0":{"encryption":"aes-xts-plain64","iv_tweak":"0","offset":"16777216","sector_size":4096,"size":"dynamic","type":"crypt"}},`+
		`"uuid":"8c3a1f40-5f6e-4a57-9c5f-0d9d3c2b1a00"}`, canonical)
	assert.Equal(t, pinnedIdentity, identityOf(t, baseImage(t)))
	assert.Equal(t, strings.Repeat("03", 32), v.VolumeKeyDigest())
}

const pinnedIdentity = "fd0d7126bc9595dbafff362a5766b831e028a9106fecb1afcad6a6e7727ba63a"

func TestIdentityStaysWhere(t *testing.T) {
	want := identityOf(t, baseImage(t))
	for name, edit := range map[string][2]string{
		"segment flags are an empty list": {`"sector_size":4096`, `"sector_size":4096,"flags":[]`},
		"a keyslot has another salt":      {`"salt":"AQEB`, `"salt":"BQEB`},
		"a keyslot has another priority":  {`"priority":2`, `"priority":0`},
		"a keyslot is removed":            {`"keyslots":["0","1"]`, `"keyslots":["1"]`},
		"a token is added":                {`"tokens":{`, `"tokens":{"9":{"type":"x","keyslots":[]},`},
		"a token is changed":              {`"protected":"e30"`, `"protected":"e31"`},
		"a flag is set":                   {`"keyslots_size":"16744448"`, `"keyslots_size":"16744448","flags":["allow-discards"]`},
		"the keyslots area is smaller":    {`"keyslots_size":"16744448"`, `"keyslots_size":"1048576"`},
	} {
		assert.Equal(t, want, identityOf(t, baseImage(t).replace(t, edit[0], edit[1])), name)
	}
	later := baseImage(t)
	later.seqid = [2]uint64{8, 8}
	assert.Equal(t, want, identityOf(t, later))
	other := baseImage(t)
	other.patch = func(primary, secondary []byte) { copy(primary[24:], "other"); copy(secondary[24:], "other") }
	assert.Equal(t, want, identityOf(t, other))
}

func TestAttack11IdentityMovesWhere(t *testing.T) {
	seen := map[string]string{identityOf(t, baseImage(t)): "nothing"}
	note := func(name, identity string) {
		assert.NotContains(t, seen, identity, "%s has the identity of %s", name, seen[identity])
		seen[identity] = name
	}
	for name, edit := range map[string][2]string{
		"the offset changes":      {`"offset":"16777216"`, `"offset":"20971520"`},
		"the size becomes fixed":  {`"size":"dynamic"`, `"size":"16777216"`},
		"the IV tweak changes":    {`"iv_tweak":"0"`, `"iv_tweak":"1"`},
		"the sector size changes": {`"sector_size":4096`, `"sector_size":512`},
		"the digest's value":      {`"digest":"AwMD`, `"digest":"BwMD`},
		"the digest's salt":       {`"salt":"AgIC`, `"salt":"BgIC`},
		"the digest's hash":       {`"segments":["0"],"hash":"sha256"`, `"segments":["0"],"hash":"sha512"`},
		"the digest's iterations": {`"hash":"sha256","iterations":1000,"salt":"AgIC`, `"hash":"sha256","iterations":1001,"salt":"AgIC`},
		"the digest's number":     {`"digests":{"0"`, `"digests":{"1"`},
	} {
		note(name, identityOf(t, baseImage(t).replace(t, edit[0], edit[1])))
	}
	i := baseImage(t)
	i.patch = func(primary, secondary []byte) { copy(primary[168:], "00000000"); copy(secondary[168:], "00000000") }
	note("the UUID changes", identityOf(t, i))
}

func TestInventory(t *testing.T) {
	v, err := baseImage(t).replace(t, `"keyslots_size":"16744448"`, `"keyslots_size":"16744448","flags":["no-read-workqueue","allow-discards"]`).validate()
	require.NoError(t, err)
	assert.Equal(t, luks.Inventory{
		SequenceID: 7,
		Copies:     luks.CopiesBoth,
		Flags:      []string{"allow-discards", "no-read-workqueue"},
		Keyslots: []luks.InventorySlot{
			{ID: 0, Type: "luks2", KDF: "argon2id", Priority: 1, Bound: true, Mark: "66687aad", AreaOffset: 32768, AreaSize: 258048},
			{ID: 1, Type: "luks2", KDF: "pbkdf2", Priority: 2, Bound: true, Mark: "72cd6e84", AreaOffset: 290816, AreaSize: 258048},
		},
		Tokens: []luks.InventoryToken{
			{ID: 0, Type: "keywright", Keyslots: []int{1}, Volume: "vol-a", Secret: 1},
			{ID: 3, Type: "clevis", Keyslots: []int{0}},
		},
	}, v.Inventory())
}

func TestLengthIsThatOfTheData(t *testing.T) {
	v, err := baseImage(t).validate()
	require.NoError(t, err)
	assert.EqualValues(t, deviceSize-(16<<20), v.Length())
	v, err = baseImage(t).replace(t, `"size":"dynamic"`, `"size":"1048576"`).validate()
	require.NoError(t, err)
	assert.EqualValues(t, 1<<20, v.Length())
}

// Row 20: a token of ours that cannot be read is shown, not passed over.
func TestAttack20UnreadableTokenIsShown(t *testing.T) {
	v, err := baseImage(t).replace(t, `"version":1`, `"version":2`).validate()
	require.NoError(t, err)
	assert.Equal(t, luks.InventoryToken{ID: 0, Type: "keywright", Keyslots: []int{1}, Unreadable: true}, v.Inventory().Tokens[0])
	assert.Empty(t, v.OwnTokens())
	assert.Empty(t, v.OwnSlots("vol-a"))
}
