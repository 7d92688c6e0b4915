package luks_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/unlock/luks"
)

type vector struct {
	Name string
	Code luks.Code // empty: accepted
	From string
	To   string
}

func vectors(t testing.TB) []vector {
	var list []vector
	text, err := os.ReadFile("testdata/vectors.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &list))
	return list
}

func TestBaseIsAccepted(t *testing.T) {
	h, err := baseImage(t).parse()
	require.NoError(t, err)
	assert.Equal(t, testUUID, h.UUID)
	assert.Equal(t, "label", h.Label)
	assert.EqualValues(t, 7, h.SequenceID)
	assert.Equal(t, luks.CopiesBoth, h.Copies)
	_, err = h.Validate()
	require.NoError(t, err)
}

// Rows 11 and 12 of the attacks: every way in which a header's metadata can be
// made to say something else is refused by name.
func TestAttack11And12Metadata(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			volume, err := baseImage(t).replace(t, v.From, v.To).validate()
			if v.Code == "" {
				require.NoError(t, err)
				require.NoError(t, volume.OpenCopy(), "luks.go reads what validates")
				return
			}
			requireRefusal(t, err, v.Code)
		})
	}
}

func TestAttack11BinaryHeader(t *testing.T) {
	put16 := func(at int, n uint16) func([]byte) { return func(b []byte) { binary.BigEndian.PutUint16(b[at:], n) } }
	put64 := func(at int, n uint64) func([]byte) { return func(b []byte) { binary.BigEndian.PutUint64(b[at:], n) } }
	set := func(at int, text string) func([]byte) { return func(b []byte) { copy(b[at:], text) } }
	for _, c := range []struct {
		name  string
		code  luks.Code
		patch func([]byte)
	}{
		{"no magic", luks.CodeNotLUKS, set(0, "XXXX")},
		{"second copy's magic", luks.CodeNotLUKS, set(0, "SKUL")},
		{"LUKS1", luks.CodeLUKS1, put16(6, 1)},
		{"version 0", luks.CodeVersion, put16(6, 0)},
		{"version 3", luks.CodeVersion, put16(6, 3)},
		{"size too small", luks.CodeHeaderSize, put64(8, 8<<10)},
		{"size too large", luks.CodeHeaderSize, put64(8, 8<<20)},
		{"size no power of two", luks.CodeHeaderSize, put64(8, 24<<10)},
		{"size of all ones", luks.CodeHeaderSize, put64(8, ^uint64(0))},
		{"size beyond the device", luks.CodeTruncated, put64(8, 4<<20)},
		{"offset", luks.CodeHeaderOffset, put64(256, 4096)},
		{"checksum algorithm", luks.CodeChecksumAlgorithm, set(72, "sha512")},
		{"checksum algorithm with a tail", luks.CodeChecksumAlgorithm, set(79, "x")},
		{"padding", luks.CodeHeaderPadding, set(300, "x")},
		{"padding behind the checksum", luks.CodeHeaderPadding, set(600, "x")},
		{"UUID empty", luks.CodeHeaderText, func(b []byte) { clear(b[168:208]) }},
		{"UUID in upper case", luks.CodeHeaderText, set(168, "8C3A")},
		{"UUID with a tail", luks.CodeHeaderText, set(168+36, "0")},
		{"UUID with a tail behind NUL", luks.CodeHeaderText, set(168+38, "0")},
		{"label with a control character", luks.CodeHeaderText, set(24, "a\nb")},
		{"label not UTF-8", luks.CodeHeaderText, set(24, "\xff")},
		{"label without NUL", luks.CodeHeaderText, set(24, strings.Repeat("x", 48))},
		{"bytes behind the JSON", luks.CodeJSONTrailing, func(b []byte) { b[len(b)-1] = ' ' }},
		{"JSON without NUL", luks.CodeJSONTrailing, func(b []byte) { copy(b[4096:], bytes.ReplaceAll(b[4096:], []byte{0}, []byte(" "))) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := baseImage(t)
			i.patch = func(primary, secondary []byte) { c.patch(primary); clear(secondary) }
			_, err := i.validate()
			requireRefusal(t, err, c.code)
		})
	}
}

func TestChecksumCoversEveryByte(t *testing.T) {
	i := baseImage(t)
	for _, at := range []int{17, 30, 110, 170, 449, 4096, 9000, headerSize - 1} {
		i.spoil = func(primary, secondary []byte) { primary[at] ^= 1; clear(secondary) }
		_, err := i.validate()
		requireRefusal(t, err, luks.CodeChecksum)
	}
	// The rest of the checksum's own field is not covered, so it must be zero.
	i.spoil = func(primary, secondary []byte) { primary[500] = 1; clear(secondary) }
	_, err := i.validate()
	requireRefusal(t, err, luks.CodeHeaderPadding)
}

// The copy that is taken is the one that cryptsetup would take, so that no later
// run of it finds another header than the one that was validated.
func TestCopies(t *testing.T) {
	damage := func(b []byte) { b[5000] ^= 1 }
	for _, c := range []struct {
		name  string
		seqid [2]uint64
		spoil func(primary, secondary []byte)
		want  luks.Copies
		taken uint64
	}{
		{"both", [2]uint64{7, 7}, nil, luks.CopiesBoth, 7},
		{"first newer", [2]uint64{8, 7}, nil, luks.CopiesPrimaryNewer, 8},
		{"second newer", [2]uint64{7, 8}, nil, luks.CopiesSecondaryNewer, 8},
		{"first damaged", [2]uint64{8, 7}, func(p, _ []byte) { damage(p) }, luks.CopiesSecondaryOnly, 7},
		{"first wiped", [2]uint64{8, 7}, func(p, _ []byte) { clear(p) }, luks.CopiesSecondaryOnly, 7},
		{"second damaged", [2]uint64{7, 8}, func(_, s []byte) { damage(s) }, luks.CopiesPrimaryOnly, 7},
		{"second of no version", [2]uint64{7, 8}, func(_, s []byte) { s[7] = 9 }, luks.CopiesPrimaryOnly, 7},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := baseImage(t)
			i.seqid, i.spoil = c.seqid, c.spoil
			h, err := i.parse()
			require.NoError(t, err)
			assert.Equal(t, c.want, h.Copies)
			assert.Equal(t, c.taken, h.SequenceID)
		})
	}
}

func TestAttack11CopiesThatContradictEachOther(t *testing.T) {
	i := baseImage(t)
	i.patch = func(_, secondary []byte) {
		at := bytes.Index(secondary, []byte("16777216"))
		copy(secondary[at:], "20971520")
	}
	_, err := i.validate()
	requireRefusal(t, err, luks.CodeCopiesDiffer)

	i.patch = func(_, secondary []byte) { copy(secondary[168:], "00000000") }
	_, err = i.validate()
	requireRefusal(t, err, luks.CodeCopiesDiffer)
}

// A LUKS1 header in front of a LUKS2 copy is what cryptsetup would open as LUKS1.
func TestAttack11LUKS1InFrontOfAGoodSecondCopy(t *testing.T) {
	i := baseImage(t)
	i.spoil = func(primary, _ []byte) { primary[7] = 1 }
	_, err := i.validate()
	requireRefusal(t, err, luks.CodeLUKS1)
}

// A second copy counts only at the place that its own size gives it.
func TestSecondCopyInTheWrongPlace(t *testing.T) {
	b := baseImage(t).bytes()
	moved := make([]byte, 64<<10)
	copy(moved[32<<10:], b[headerSize:])
	_, err := validate(moved)
	requireRefusal(t, err, luks.CodeNotLUKS)
}

func TestReencryptingHeaderIsParsedAndRefused(t *testing.T) {
	h, err := baseImage(t).replace(t, `"json_size"`, `"requirements":{"mandatory":["online-reencrypt-v2"]},"json_size"`).parse()
	require.NoError(t, err)
	_, err = h.Validate()
	requireRefusal(t, err, luks.CodeRequirements)
}

func TestTruncatedDevices(t *testing.T) {
	b := baseImage(t).bytes()
	for _, n := range []int{0, 1, 15, 4096, headerSize - 1} {
		_, err := validate(b[:n])
		requireRefusal(t, err, luks.CodeTruncated)
	}
	_, err := validate(b[:headerSize])
	require.NoError(t, err)
}

type brokenDisk struct{}

func (brokenDisk) ReadAt([]byte, int64) (int, error) { return 0, errors.New("input/output error") }

func TestReadErrorIsNoRefusal(t *testing.T) {
	_, err := luks.Parse(brokenDisk{}, deviceSize)
	require.ErrorContains(t, err, "input/output error")
	var refusal *luks.Refusal
	assert.NotErrorAs(t, err, &refusal)
}

// fickleDisk shows another header at every reading.
type fickleDisk struct{ reads [][]byte }

func (d *fickleDisk) ReadAt(p []byte, off int64) (int, error) {
	b := d.reads[0]
	if len(d.reads) > 1 {
		d.reads = d.reads[1:]
	}
	return copy(p, b[off:]), nil
}

func TestAttack11HeaderThatChangesWhileItIsRead(t *testing.T) {
	good := baseImage(t).bytes()
	large := make([]byte, len(good))
	copy(large, good)
	binary.BigEndian.PutUint64(large[8:], 32<<10)
	_, err := luks.Parse(&fickleDisk{reads: [][]byte{good, large, make([]byte, 8<<20)}}, deviceSize)
	requireRefusal(t, err, luks.CodeHeaderSize)
}
