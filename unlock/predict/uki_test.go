package predict_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/claims"
	"keywright.dev/unlock/predict"
)

const stub252 = "#### LoaderInfo: systemd-stub 252.39-1~deb12u2 ####"

// part is a section of a PE file that tests write.
type part struct {
	name    string
	content string
}

// writePE writes a PE32+ file: headers of 0x400 bytes, then the sections, each
// filled up to 512 bytes.
func writePE(parts ...part) []byte {
	le := binary.LittleEndian
	out := make([]byte, 0x400)
	copy(out, "MZ")
	le.PutUint32(out[0x3c:], 0x80)
	pe := out[0x80:]
	copy(pe, "PE\x00\x00")
	le.PutUint16(pe[4:], 0x8664)
	le.PutUint16(pe[6:], uint16(len(parts)))
	le.PutUint16(pe[20:], 240)
	le.PutUint16(pe[24:], 0x20b)
	le.PutUint32(pe[24+60:], 0x400)
	le.PutUint32(pe[24+64:], 0xdeadbeef) // checksum
	le.PutUint32(pe[24+108:], 16)
	for i, p := range parts {
		header := out[0x80+24+240+40*i:]
		copy(header[:8], p.name)
		le.PutUint32(header[8:], uint32(len(p.content)))
		le.PutUint32(header[12:], uint32(0x1000*(i+1)))
		raw := (len(p.content) + 511) &^ 511
		le.PutUint32(header[16:], uint32(raw))
		le.PutUint32(header[20:], uint32(len(out)))
		out = append(append(out, p.content...), make([]byte, raw-len(p.content))...)
	}
	return out
}

// signed appends a signature to a PE file.
func signed(image []byte, signature string) []byte {
	image = bytes.Clone(image)
	security := image[0x80+24+144:]
	binary.LittleEndian.PutUint32(security, uint32(len(image)))
	binary.LittleEndian.PutUint32(security[4:], uint32(len(signature)))
	return append(image, signature...)
}

func kernel() string { return string(writePE(part{".text", "a kernel"})) }

func someUKI() []part {
	return []part{
		{".text", "a stub"}, {".sdmagic", stub252}, {".sbat", "sbat,1\n"}, {".uname", "6.1"}, {".osrel", "ID=x\n"},
		{".cmdline", "root=/dev/x quiet"}, {".initrd", "an initrd"}, {".linux", kernel()},
	}
}

// with replaces a section, or adds it; an empty content removes it.
func with(name, content string) []part {
	var parts []part
	for _, p := range someUKI() {
		if p.name != name {
			parts = append(parts, p)
		}
	}
	if content != "" {
		parts = append(parts, part{name, content})
	}
	return parts
}

func sum(text string) string {
	digest := sha256.Sum256([]byte(text))
	return hex.EncodeToString(digest[:])
}

func predictUKI(t *testing.T, image []byte) claims.Set {
	t.Helper()
	set, err := predict.UKI(bytes.NewReader(image), int64(len(image)))
	require.NoError(t, err)
	return set
}

// linearDigest is the Authenticode digest of an image whose sections follow one
// another: all but the checksum and the signature's directory entry.
func linearDigest(image []byte) string {
	const optional = 0x80 + 24
	return sum(string(image[:optional+64]) + string(image[optional+68:optional+144]) + string(image[optional+152:]))
}

func TestUKI(t *testing.T) {
	image := writePE(someUKI()...)
	got := predictUKI(t, image)
	want, err := claims.New(claims.Files, []claims.Claim{
		{Name: claims.BootApplication, Value: linearDigest(image)},
		{Name: claims.KernelImage, Value: linearDigest([]byte(kernel()))},
		{Name: claims.ImageSignature, Value: claims.Absent},
		{Name: "uki.linux", Value: sum(kernel())},
		{Name: "uki.osrel", Value: sum("ID=x\n")},
		{Name: "uki.cmdline", Value: sum("root=/dev/x quiet")},
		{Name: "uki.initrd", Value: sum("an initrd")},
		{Name: claims.KernelCommandLine, Value: claims.CommandLineDigest("root=/dev/x quiet")},
		{Name: claims.CommandLineText, Value: "root=/dev/x quiet"},
		{Name: claims.KernelInitrd, Value: sum("an initrd")},
	})
	require.NoError(t, err)
	assert.Empty(t, claims.Diff(want, got))
}

func TestSignatureAndChecksumMoveNoDigest(t *testing.T) {
	plain := predictUKI(t, writePE(someUKI()...))
	image := signed(writePE(someUKI()...), "a signature")
	binary.LittleEndian.PutUint32(image[0x80+24+64:], 7)
	assert.Equal(t, []claims.Difference{{Name: claims.ImageSignature, Was: claims.Absent, Is: claims.Present}},
		claims.Diff(plain, predictUKI(t, image)))
}

func TestSectionsAreHashedInTheOrderOfTheFile(t *testing.T) {
	image := writePE(someUKI()...)
	table := image[0x80+24+240:]
	first, second := bytes.Clone(table[:40]), bytes.Clone(table[40:80])
	copy(table, second)
	copy(table[40:], first)
	application, _ := predictUKI(t, image).One(claims.BootApplication)
	assert.Equal(t, linearDigest(image), application)
}

func TestBytesBehindTheSectionsCount(t *testing.T) {
	image := writePE(someUKI()...)
	before, after := predictUKI(t, image), predictUKI(t, append(bytes.Clone(image), "more"...))
	differences := claims.Diff(before, after)
	require.Len(t, differences, 1)
	assert.Equal(t, claims.BootApplication, differences[0].Name)
}

func TestNewerStubsMeasureMore(t *testing.T) {
	stub := func(version string) []part {
		parts := with(".sdmagic", "#### LoaderInfo: systemd-stub "+version+" ####")
		return append(parts, part{".ucode", "microcode"})
	}
	for version, want := range map[string][]bool{ // sbat, ucode, initrd known
		"252":      {false, false, true},
		"254.1":    {true, false, true},
		"256~rc1":  {true, true, false},
		"259.1-1a": {true, true, false},
	} {
		set := predictUKI(t, writePE(stub(version)...))
		assert.Equal(t, want, []bool{set.Has("uki.sbat"), set.Has("uki.ucode"), set.Has(claims.KernelInitrd)}, version)
	}
}

func TestWhatOnlyABootShowsIsLeftOut(t *testing.T) {
	for name, parts := range map[string][]part{
		"PCR signature":   append(someUKI(), part{".pcrsig", "{}"}),
		"PCR public key":  append(someUKI(), part{".pcrpkey", "PEM"}),
		"os-release copy": with(".sdmagic", "#### LoaderInfo: systemd-stub 257 ####"),
		"no initrd":       with(".initrd", ""),
	} {
		assert.False(t, predictUKI(t, writePE(parts...)).Has(claims.KernelInitrd), name)
	}
	assert.False(t, predictUKI(t, writePE(with(".cmdline", "")...)).Has(claims.KernelCommandLine))
	assert.False(t, predictUKI(t, writePE(append(someUKI(), part{".pcrsig", "{}"})...)).Has("uki.pcrsig"), "never measured")
}

func TestUKIRefuses(t *testing.T) {
	whole := writePE(someUKI()...)
	edit := func(at int, value uint32) []byte {
		image := bytes.Clone(whole)
		binary.LittleEndian.PutUint32(image[at:], value)
		return image
	}
	const optional, table = 0x80 + 24, 0x80 + 24 + 240
	cut := signed(whole, "a signature")
	for name, c := range map[string]struct {
		image []byte
		want  string
	}{
		"nothing":                       {nil, "no PE file"},
		"no MZ":                         {append([]byte("ZM"), whole[2:]...), "no PE file"},
		"headers cut off":               {whole[:0x100], "no PE file"},
		"PE header far away":            {edit(0x3c, 0xffffffff), "no PE file"},
		"no PE signature":               {edit(0x80, 0), "no PE file"},
		"32-bit image":                  {edit(optional, 0x10b), "PE32+"},
		"few directories":               {edit(optional+108, 4), "PE32+"},
		"no sections":                   {edit(0x84, 0x8664), "section headers"},
		"many sections":                 {edit(0x84, 97<<16|0x8664), "section headers"},
		"headers too short":             {edit(optional+60, 0x200), "section headers"},
		"headers too long":              {edit(optional+60, 1<<20), "section headers"},
		"section outside the file":      {edit(table+40+20, 1<<20), "inside the file"},
		"sections overlap":              {edit(table+16, uint32(len(whole)-0x400)), "overlap"},
		"signature not at the end":      {cut[:len(cut)-1], "signature"},
		"file cut off":                  {whole[:len(whole)-1], "inside the file"},
		"no kernel":                     {writePE(with(".linux", "")...), ".linux"},
		"a kernel that is none":         {writePE(with(".linux", "MZ and nothing else")...), "kernel"},
		"section twice":                 {writePE(append(someUKI(), part{".osrel", "y"})...), "more than one"},
		"profiles":                      {writePE(append(someUKI(), part{".profile", "x"})...), "profiles"},
		"no stub":                       {writePE(with(".sdmagic", "")...), "systemd-stub"},
		"another stub":                  {writePE(with(".sdmagic", "#### LoaderInfo: other 252 ####")...), "systemd-stub"},
		"older stub":                    {writePE(with(".sdmagic", "#### LoaderInfo: systemd-stub 251 ####")...), "systemd-stub"},
		"stub without a version":        {writePE(with(".sdmagic", "#### LoaderInfo: systemd-stub git ####")...), "systemd-stub"},
		"stub's name too long":          {writePE(with(".sdmagic", stub252+string(make([]byte, 300)))...), "at most 256"},
		"line feed at the end":          {writePE(with(".cmdline", "quiet\n")...), "line feed"},
		"control character":             {writePE(with(".cmdline", "a\tb")...), "kernel.cmdline"},
		"line of NULs":                  {writePE(with(".cmdline", "\x00\x00")...), "kernel.cmdline"},
		"command line other than ASCII": {writePE(with(".cmdline", "ä")...), "kernel.cmdline"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := predict.UKI(bytes.NewReader(c.image), int64(len(c.image)))
			require.ErrorContains(t, err, c.want)
		})
	}
	zeros := edit(table+40*5+8, 4096)
	_, err := predict.UKI(bytes.NewReader(zeros), int64(len(zeros)))
	require.ErrorContains(t, err, "in memory")
	_, err = predict.UKI(bytes.NewReader(nil), 1<<32)
	require.ErrorContains(t, err, "at most 4294967295")
}

func FuzzUKI(f *testing.F) {
	f.Add(writePE(someUKI()...))
	f.Add(signed(writePE(someUKI()...), "a signature"))
	f.Fuzz(func(t *testing.T, image []byte) {
		set, err := predict.UKI(bytes.NewReader(image), int64(len(image)))
		if err != nil {
			return
		}
		require.Equal(t, claims.Files, set.Kind())
		require.True(t, set.Has(claims.UKILinux))
	})
}
