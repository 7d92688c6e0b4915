package luks

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const keyInKeyring = ":64:logon:cryptsetup:8c3a1f40-5f6e-4a57-9c5f-0d9d3c2b1a00-d0"

func TestParseParameters(t *testing.T) {
	table, err := parseParameters([]byte("aes-xts-plain64 " + keyInKeyring + " 0 254:0 32768 2 sector_size:4096 allow_discards"))
	require.NoError(t, err)
	assert.Equal(t, Table{
		Cipher: "aes-xts-plain64", KeySize: 64, KeyDescription: "logon:cryptsetup:8c3a1f40-5f6e-4a57-9c5f-0d9d3c2b1a00-d0",
		Device: "254:0", Offset: 16 << 20, SectorSize: 4096, Flags: []string{"allow_discards"},
	}, table)

	table, err = parseParameters([]byte("aes-xts-plain64 " + strings.Repeat("ab", 32) + " 7 254:0 8"))
	require.NoError(t, err)
	assert.Equal(t, Table{Cipher: "aes-xts-plain64", KeySize: 32, IVTweak: 7, Device: "254:0", Offset: 4096, SectorSize: 512}, table)
}

func TestParseParametersRefuses(t *testing.T) {
	for _, parameters := range []string{
		"", "a b c d", "c :64:logon 0 254:0 8", "c :x:logon:d 0 254:0 8", "c ab x 254:0 8",
		"c ab 0 254:0 -1", "c ab 0 254:0 18446744073709551615", "c ab 0 254:0 8 1 sector_size:x",
	} {
		_, err := parseParameters([]byte(parameters))
		assert.Error(t, err, parameters)
	}
}

func target(kind string, start, length uint64, parameters string) []byte {
	b := make([]byte, unix.SizeofDmTargetSpec, 512)
	binary.NativeEndian.PutUint64(b, start)
	binary.NativeEndian.PutUint64(b[8:], length)
	copy(b[24:], kind)
	return append(b, parameters+"\x00rest"...)
}

func TestParseTarget(t *testing.T) {
	parameters := "aes-xts-plain64 " + keyInKeyring + " 0 254:0 32768"
	table, err := parseTarget(target("crypt", 0, 8, parameters))
	require.NoError(t, err)
	assert.EqualValues(t, 4096, table.Length)
	_, err = parseTarget(target("linear", 0, 8, parameters))
	require.ErrorContains(t, err, `target "linear"`)
	_, err = parseTargets(target("crypt", 8, 8, parameters), 1)
	require.Error(t, err)
	_, err = parseTarget(target("crypt", 1<<60, 8, parameters))
	require.Error(t, err)
}

// A volume under reencryption has a target for each part, as the kernel answers.
func TestParseTargets(t *testing.T) {
	of := func(parts ...[]byte) []byte {
		var b []byte
		for _, p := range parts {
			p = append(p, make([]byte, (8-len(p)%8)%8)...)
			b = append(b, p...)
			binary.NativeEndian.PutUint32(b[len(b)-len(p)+20:], uint32(len(b)))
		}
		return b
	}
	old := ":64:logon:cryptsetup:8c3a1f40-5f6e-4a57-9c5f-0d9d3c2b1a00-d0"
	next := ":64:logon:cryptsetup:8c3a1f40-5f6e-4a57-9c5f-0d9d3c2b1a00-d1"
	first := target("crypt", 0, 65536, "aes-xts-plain64 "+next+" 0 254:0 32768 1 sector_size:4096")
	second := target("crypt", 65536, 131072, "aes-xts-plain64 "+old+" 65536 254:0 98304 1 sector_size:4096")
	table, err := parseTargets(of(first, second), 2)
	require.NoError(t, err)
	assert.Equal(t, Table{
		Length: 96 << 20, Cipher: cipherSpec, KeySize: 64, KeyDescription: next[len(":64:"):], Device: "254:0", Offset: 16 << 20, SectorSize: 4096,
		Rest: []Target{{Start: 32 << 20, KeyDescription: old[len(":64:"):], IVTweak: 65536, Offset: 48 << 20}},
	}, table)
	for name, b := range map[string][]byte{
		"a gap":          of(first, target("crypt", 65544, 8, "aes-xts-plain64 "+old+" 65536 254:0 98304 1 sector_size:4096")),
		"another device": of(first, target("crypt", 65536, 8, "aes-xts-plain64 "+old+" 65536 254:1 98304 1 sector_size:4096")),
		"in the clear":   of(first, target("linear", 65536, 8, "254:0 98304")),
		"cut":            of(first)[:len(first)],
	} {
		_, err := parseTargets(b, 2)
		require.Error(t, err, name)
	}
}

// Row 25: a mapping passes for the volume's only if all that decides what is
// read through it is as validated.
func TestAttack25TableThatDiffersIsNamed(t *testing.T) {
	want := Table{
		Name: "root", UUID: "CRYPT-LUKS2-8c3a-root", Length: 4096, Cipher: cipherSpec, KeySize: 64,
		KeyDescription: "logon:x", Device: "254:0", Offset: 16 << 20, SectorSize: 4096, Flags: []string{"allow_discards"},
	}
	require.NoError(t, want.same(want))
	for field, change := range map[string]func(*Table){
		"UUID":           func(t *Table) { t.UUID = "CRYPT-LUKS2-9c3a-root" },
		"backing device": func(t *Table) { t.Device = "254:1" },
		"offset":         func(t *Table) { t.Offset = 0 },
		"length":         func(t *Table) { t.Length = 8192 },
		"cipher":         func(t *Table) { t.Cipher = "cipher_null-ecb" },
		"key size":       func(t *Table) { t.KeySize = 32 },
		"key is":         func(t *Table) { t.KeyDescription = "" },
		"IV tweak":       func(t *Table) { t.IVTweak = 1 },
		"sector size":    func(t *Table) { t.SectorSize = 512 },
		"read-only":      func(t *Table) { t.ReadOnly = true },
		"flags":          func(t *Table) { t.Flags = nil },
	} {
		got := want
		change(&got)
		require.ErrorContains(t, want.same(got), field)
	}
}

func TestNames(t *testing.T) {
	for _, name := range []string{"root", "sda3_crypt", "luks-8c3a1f40-5f6e-4a57-9c5f-0d9d3c2b1a00", strings.Repeat("x", 80)} {
		assert.NoError(t, CheckName(name), name)
	}
	for _, name := range []string{"", ".", "..", "control", "a/b", "a b", "a\nb", "ä", strings.Repeat("x", 81)} {
		assert.Error(t, CheckName(name), name)
	}
	assert.Equal(t, "CRYPT-LUKS2-8c3a1f405f6e4a579c5f0d9d3c2b1a00-root", mappingUUID("8c3a1f40-5f6e-4a57-9c5f-0d9d3c2b1a00", "root"))
}
