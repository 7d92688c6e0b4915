package luks_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"keywright.dev/unlock/luks"
)

const (
	headerSize = 16 << 10
	deviceSize = 32 << 20
	testUUID   = "8c3a1f40-5f6e-4a57-9c5f-0d9d3c2b1a00"
)

// image makes LUKS2 headers: valid ones, and ones that are wrong in one place.
type image struct {
	json  string
	seqid [2]uint64
	// patch changes the copies before their checksums are set, spoil after.
	patch, spoil func(primary, secondary []byte)
}

func baseJSON(t testing.TB) string {
	text, err := os.ReadFile("testdata/base.json")
	require.NoError(t, err)
	return strings.TrimSpace(string(text))
}

func baseImage(t testing.TB) image {
	return image{json: baseJSON(t), seqid: [2]uint64{7, 7}}
}

// replace changes the one place of the JSON text that is from.
func (i image) replace(t testing.TB, from, to string) image {
	require.Equal(t, 1, strings.Count(i.json, from), from)
	i.json = strings.Replace(i.json, from, to, 1)
	return i
}

// bytes returns both copies of the header.
func (i image) bytes() []byte {
	b := make([]byte, 2*headerSize)
	primary, secondary := b[:headerSize], b[headerSize:]
	writeCopy(primary, "LUKS\xba\xbe", 0, i.seqid[0], i.json)
	writeCopy(secondary, "SKUL\xba\xbe", headerSize, i.seqid[1], i.json)
	if i.patch != nil {
		i.patch(primary, secondary)
	}
	setChecksum(primary)
	setChecksum(secondary)
	if i.spoil != nil {
		i.spoil(primary, secondary)
	}
	return b
}

func (i image) parse() (*luks.Header, error) {
	return luks.Parse(bytes.NewReader(i.bytes()), deviceSize)
}

func (i image) validate() (*luks.Volume, error) {
	return validate(i.bytes())
}

func validate(b []byte) (*luks.Volume, error) {
	h, err := luks.Parse(bytes.NewReader(b), deviceSize)
	if err != nil {
		return nil, err
	}
	return h.Validate()
}

// readVolume reads a device or file that is a good volume.
func readVolume(t testing.TB, path string) *luks.Volume {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	h, err := luks.ReadDevice(f)
	require.NoError(t, err)
	v, err := h.Validate()
	require.NoError(t, err)
	return v
}

func writeCopy(b []byte, magic string, offset, seqid uint64, json string) {
	copy(b, magic)
	binary.BigEndian.PutUint16(b[6:], 2)
	binary.BigEndian.PutUint64(b[8:], headerSize)
	binary.BigEndian.PutUint64(b[16:], seqid)
	copy(b[24:], "label")
	copy(b[72:], "sha256")
	copy(b[104:], bytes.Repeat([]byte{9}, 64))
	copy(b[168:], testUUID)
	binary.BigEndian.PutUint64(b[256:], offset)
	copy(b[4096:], json)
}

func setChecksum(b []byte) {
	clear(b[448:480])
	sum := sha256.Sum256(b)
	copy(b[448:], sum[:])
}

func requireRefusal(t testing.TB, err error, code luks.Code) {
	t.Helper()
	var refusal *luks.Refusal
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, code, refusal.Code, refusal.Detail)
	require.NotEmpty(t, refusal.Detail)
	require.LessOrEqual(t, len(refusal.Detail), 200)
}

// sameText compares canonical forms, of which every byte counts.
func sameText(t testing.TB, want string, got []byte) {
	t.Helper()
	require.Equal(t, want, string(got))
}

func TestReadDeviceOfAPlainFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "volume")
	require.NoError(t, os.WriteFile(path, baseImage(t).bytes(), 0o600))
	require.NoError(t, os.Truncate(path, deviceSize))
	v := readVolume(t, path)
	require.Equal(t, testUUID, v.Header().UUID)
	_, err := v.Open(t.Context(), key("any"), "data", luks.Options{})
	require.ErrorContains(t, err, "not a block device")
	require.ErrorContains(t, v.Check(luks.Table{Name: "data"}), "not a block device")
	_, err = openVolume(t, sealedVolume(t, make([]byte, 64))).Open(t.Context(), key("any"), "data", luks.Options{})
	require.ErrorContains(t, err, "not read from a device")
}
