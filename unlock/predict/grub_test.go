package predict_test

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io/fs"
	"maps"
	"os"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/claims"
	"keywright.dev/unlock/predict"
)

func menu(t testing.TB, text string) []predict.Entry {
	t.Helper()
	entries, err := predict.Entries(strings.NewReader(text))
	require.NoError(t, err)
	return entries
}

func TestEntriesOfDebiansConfiguration(t *testing.T) {
	text, err := os.ReadFile("testdata/grub.cfg")
	require.NoError(t, err)
	entries := menu(t, string(text))
	const options = " root=/dev/mapper/root ro console=ttyS0 panic=-1 quiet"
	first := predict.Entry{
		Title: "Debian GNU/Linux", CommandLine: "/vmlinuz-6.1.0-56-cloud-amd64" + options,
		Kernel: "/vmlinuz-6.1.0-56-cloud-amd64", Initrds: []string{"/initrd.img-6.1.0-56-cloud-amd64"},
	}
	require.Len(t, entries, 5)
	assert.Equal(t, first, entries[0])
	assert.Equal(t, "Debian GNU/Linux, with Linux 6.1.0-56-cloud-amd64 (recovery mode)", entries[2].Title)
	assert.Equal(t, "/vmlinuz-6.1.0-56-cloud-amd64 root=/dev/mapper/root ro single console=ttyS0 panic=-1", entries[2].CommandLine)
	assert.Equal(t, "/vmlinuz-6.1.0-50-cloud-amd64"+options, entries[3].CommandLine)
}

func TestEntriesFollowGRUBsQuoting(t *testing.T) {
	for linux, want := range map[string]string{
		`linux /v   a	b`:       "/v a b",
		`linux /v 'a b'`:       `/v "a b"`,
		`linux /v "a 'b' \"c"`: `/v "a \'b\' \"c"`,
		`linux /v a\ b`:        `/v "a b"`,
		`linux /v a\\b`:        `/v a\\b`,
		`linux /v a # b`:       "/v a",
		`linux /v a#b`:         "/v a#b",
		`linux /v a; echo b`:   "/v a",
		`linux /v ''`:          "/v ",
	} {
		entries := menu(t, "menuentry x {\n\t"+linux+"\n\tinitrd /i /j\n}\n")
		if assert.Len(t, entries, 1, linux) {
			assert.Equal(t, want, entries[0].CommandLine)
			assert.Equal(t, []string{"/i", "/j"}, entries[0].Initrds)
		}
	}
}

func TestEntriesThatCannotBeToldAreLeftOut(t *testing.T) {
	for _, body := range []string{
		"linux /v $handoff\ninitrd /i", "linux \"/v-$version\"\ninitrd /i", "linux /v a", "initrd /i", "linux\ninitrd /i",
		"linux /v\nlinux /w\ninitrd /i", "linux /v\ninitrd /i\ninitrd /j", "linux /v 'open\ninitrd /i", "chainloader /v",
	} {
		assert.Empty(t, menu(t, "menuentry x {\n"+body+"\n}\n"), body)
	}
	assert.Empty(t, menu(t, "linux /v\ninitrd /i\n"), "outside of an entry")
	_, err := predict.Entries(strings.NewReader(strings.Repeat("x", 100<<10)))
	assert.Error(t, err)
}

func FuzzEntries(f *testing.F) {
	text, err := os.ReadFile("testdata/grub.cfg")
	require.NoError(f, err)
	f.Add(string(text))
	f.Add("menuentry 'x' {\nlinux /v \"a b\" c\\d\ninitrd /i\n}")
	f.Fuzz(func(t *testing.T, text string) {
		entries, err := predict.Entries(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, e := range entries {
			require.True(t, strings.HasPrefix(e.CommandLine, e.Kernel) || strings.ContainsAny(e.Kernel, ` \'"`))
			require.NotEmpty(t, e.Initrds)
		}
	})
}

// disk is what GRUB and the system read: contents by path.
type disk map[string]string

type memory struct{ *strings.Reader }

func (memory) Close() error  { return nil }
func (m memory) Size() int64 { return m.Reader.Size() }

func (d disk) open(path string) (predict.File, error) {
	content, ok := d[path]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return memory{strings.NewReader(content)}, nil
}

// loaded is the data of an event about a program at a path of UEFI.
func loaded(path string) string {
	var nodes []byte
	if path != "" {
		var text []byte
		for _, unit := range utf16.Encode([]rune(path + "\x00")) {
			text = binary.LittleEndian.AppendUint16(text, unit)
		}
		nodes = binary.LittleEndian.AppendUint16([]byte{2, 1}, 4) // a node of another type
		nodes = append(binary.LittleEndian.AppendUint16(append(nodes, 4, 4), uint16(4+len(text))), text...)
		nodes = append(nodes, 0x7f, 0xff, 4, 0)
	}
	return string(append(binary.LittleEndian.AppendUint64(make([]byte, 24), uint64(len(nodes))), nodes...))
}

// logOf writes an event log whose events are texts of PCRs 8 and 9, after those of
// the programs.
func logOf(events ...string) []byte {
	return logOfPrograms([]string{loaded(shim), loaded(grub)}, events...)
}

func logOfPrograms(programs []string, events ...string) []byte {
	le := binary.LittleEndian
	spec := append([]byte("Spec ID Event03\x00\x00\x00\x00\x00\x00\x02\x00\x02"), 1, 0, 0, 0, 0x0b, 0, 32, 0, 0)
	out := make([]byte, 28)
	le.PutUint32(out[4:], 3)
	out = append(le.AppendUint32(out, uint32(len(spec))), spec...)
	event := func(pcr, kind uint32, data string) {
		for _, v := range []uint32{pcr, kind, 1} {
			out = le.AppendUint32(out, v)
		}
		sum := sha256.Sum256([]byte(data))
		out = append(le.AppendUint16(out, 0x0b), sum[:]...)
		out = append(le.AppendUint32(out, uint32(len(data))), data...)
	}
	for _, data := range programs {
		event(4, 0x80000003, data)
	}
	for _, text := range events {
		pcr := uint32(9)
		if strings.HasPrefix(text, "grub_cmd: ") {
			pcr = 8
		}
		event(pcr, 0x0d, text+"\x00")
	}
	return out
}

const (
	config  = "(hd0,gpt2)/grub/grub.cfg"
	grubenv = "(hd0,gpt2)/grub/grubenv"
	shim    = `\EFI\debian\shimx64.efi`
	grub    = `\EFI\debian\grubx64.efi`
)

// loaders are the files of shim and GRUB.
func loaders() disk {
	return disk{
		"/EFI/debian/shimx64.efi": string(signed(writePE(part{".text", "shim"}), "by Microsoft")),
		"/EFI/debian/grubx64.efi": string(signed(writePE(part{".text", "GRUB"}), "by Debian")),
	}
}

// and adds files.
func (d disk) and(more disk) disk {
	all := maps.Clone(d)
	maps.Copy(all, more)
	return all
}

func stockLog() []byte {
	return logOfPrograms([]string{loaded(shim), loaded(grub), loaded(""), loaded("")}, "grub_cmd: configfile "+config, config, grubenv, grubenv, "grub_cmd: linux /vmlinuz-1 ro", "/vmlinuz-1", "grub_cmd: initrd /ucode /initrd-1", "/ucode", "/initrd-1")
}

func entry() predict.Entry {
	return predict.Entry{CommandLine: "/vmlinuz-2 root=/dev/mapper/r ro", Kernel: "/vmlinuz-2", Initrds: []string{"/initrd-2"}}
}

func TestPredictionOfABootByGRUB(t *testing.T) {
	kernel := string(signed(writePE(part{".text", "a kernel"}), "by somebody"))
	d := loaders().and(disk{config: "the menu", "/vmlinuz-2": kernel, "/initrd-2": "an initrd"})
	got, err := predict.GRUB{Log: stockLog(), Open: d.open}.Predict(entry())
	require.NoError(t, err)
	digest := func(path, signature string) string {
		return linearDigest([]byte(d[path])[:len(d[path])-len(signature)])
	}
	want, err := claims.New(claims.Files, []claims.Claim{
		{Name: claims.BootApplication, Value: digest("/EFI/debian/shimx64.efi", "by Microsoft")},
		{Name: claims.BootApplication, Value: digest("/EFI/debian/grubx64.efi", "by Debian")},
		{Name: claims.KernelImage, Value: linearDigest([]byte(kernel)[:len(kernel)-len("by somebody")])},
		{Name: claims.ImageSignature, Value: claims.Present},
		{Name: claims.LoaderKernel, Value: sum(kernel)},
		{Name: claims.CommandLineText, Value: "/vmlinuz-2 root=/dev/mapper/r ro"},
		{Name: claims.LoaderFile, Value: sum("the menu")},
		{Name: claims.LoaderEnvironment, Value: claims.Present},
		{Name: claims.LoaderEnvironment, Value: claims.Present},
		{Name: claims.LoaderInitrd, Value: sum("an initrd")},
	})
	require.NoError(t, err)
	assert.Empty(t, claims.Diff(want, got))
}

func TestByGRUB(t *testing.T) {
	assert.True(t, predict.ByGRUB(stockLog()))
	assert.False(t, predict.ByGRUB(logOf("/vmlinuz")))
	assert.False(t, predict.ByGRUB(nil))
}

// faulty is a file that cannot be read.
type faulty struct{ memory }

func (faulty) ReadAt([]byte, int64) (int, error) { return 0, errors.New("input/output error") }

func TestPredictionByGRUBNamesWhatIsMissing(t *testing.T) {
	kernel := string(signed(writePE(part{".text", "a kernel"}), "by somebody"))
	whole := loaders().and(disk{config: "the menu", "/vmlinuz-2": kernel, "/initrd-2": "an initrd"})
	programs := func(data ...string) []byte {
		return logOfPrograms(data, config, "grub_cmd: linux /v", "/v", "grub_cmd: initrd /i", "/i")
	}
	for name, c := range map[string]struct {
		log  []byte
		open func(string) (predict.File, error)
		want string
	}{
		"no configuration":            {stockLog(), loaders().and(disk{"/vmlinuz-2": kernel, "/initrd-2": "x"}).open, config},
		"no kernel":                   {stockLog(), loaders().and(disk{config: "x", "/initrd-2": "x"}).open, "/vmlinuz-2"},
		"no initrd":                   {stockLog(), loaders().and(disk{config: "x", "/vmlinuz-2": kernel}).open, "/initrd-2"},
		"a kernel that is no program": {stockLog(), loaders().and(disk{config: "x", "/vmlinuz-2": "gzip", "/initrd-2": "x"}).open, "no PE file"},
		"a log of another loader":     {logOf("grub_cmd: chainloader x"), whole.open, "does not show how GRUB loaded"},
		"no shim":                     {stockLog(), disk{config: "x", "/vmlinuz-2": kernel, "/initrd-2": "x"}.open, "shimx64.efi"},
		"a shim that is no program":   {stockLog(), whole.and(disk{"/EFI/debian/shimx64.efi": "x"}).open, "no PE file"},
		"programs from nowhere":       {programs(loaded(""), loaded("")), whole.open, "does not name the files of shim and GRUB"},
		"a program cut off":           {programs(loaded(shim)[:40]), whole.open, "program 1: its device path is cut off"},
		"a short event":               {programs("x"), whole.open, "program 1: its device path is cut off"},
		"no log":                      {nil, whole.open, "event log"},
		"a file that cannot be read": {stockLog(), func(string) (predict.File, error) {
			return faulty{memory{strings.NewReader("x")}}, nil
		}, "input/output error"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := predict.GRUB{Log: c.log, Open: c.open}.Predict(entry())
			assert.ErrorContains(t, err, c.want)
		})
	}
}

func TestMountedStaysBelowItsPlaces(t *testing.T) {
	assert.Equal(t, []string{"/boot/efi/grub/x", "/efi/grub/x", "/boot/grub/x", "/grub/x"}, predict.Mounted("(hd0,gpt2)/grub/x"))
	assert.Equal(t, []string{"/boot/efi/vmlinuz", "/efi/vmlinuz", "/boot/vmlinuz", "/vmlinuz"}, predict.Mounted("/vmlinuz"))
	for _, path := range []string{"", "grub/x", "(hd0", "(hd0)x", "/../etc/shadow", "(hd0)/a/../../b"} {
		assert.Empty(t, predict.Mounted(path), path)
	}
}
