//go:build integration

package unlock

import (
	"crypto/sha256"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// efiProgram stands in for shim, GRUB and a kernel.
const efiProgram = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"

// grubBoot makes the files of a boot by GRUB in a folder, and the log that shows them.
func grubBoot(t *testing.T) (dir string, next NextBoot) {
	t.Helper()
	dir = t.TempDir()
	program, err := os.ReadFile(efiProgram)
	require.NoError(t, err)
	for name, content := range map[string]string{
		"shim.efi": string(program), "grub.efi": string(program), "vmlinuz": string(program), "initrd": "the initrd", "next": "the next initrd",
		"grub.cfg": "menuentry 'Debian' {\n linux " + dir + "/vmlinuz ro\n initrd " + dir + "/initrd\n}\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	le := binary.LittleEndian
	spec := append([]byte("Spec ID Event03\x00\x00\x00\x00\x00\x00\x02\x00\x02"), 1, 0, 0, 0, 0x0b, 0, 32, 0, 0)
	log := make([]byte, 28)
	le.PutUint32(log[4:], 3)
	log = append(le.AppendUint32(log, uint32(len(spec))), spec...)
	event := func(pcr, kind uint32, data []byte) {
		for _, v := range []uint32{pcr, kind, 1} {
			log = le.AppendUint32(log, v)
		}
		sum := sha256.Sum256(data)
		log = append(le.AppendUint16(log, 0x0b), sum[:]...)
		log = append(le.AppendUint32(log, uint32(len(data))), data...)
	}
	for _, name := range []string{"shim.efi", "grub.efi"} {
		var path []byte
		for _, unit := range utf16.Encode([]rune(strings.ReplaceAll(dir+"/"+name, "/", `\`) + "\x00")) {
			path = le.AppendUint16(path, unit)
		}
		node := append(le.AppendUint16([]byte{4, 4}, uint16(4+len(path))), path...)
		node = append(node, 0x7f, 0xff, 4, 0)
		event(4, 0x80000003, append(le.AppendUint64(make([]byte, 24), uint64(len(node))), node...))
	}
	event(9, 0x0d, []byte("(hd0,gpt2)"+dir+"/grub.cfg\x00"))
	event(9, 0x0d, []byte(dir+"/vmlinuz\x00"))
	event(8, 0x0d, []byte("grub_cmd: initrd "+dir+"/initrd\x00"))
	event(9, 0x0d, []byte(dir+"/initrd\x00"))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "log"), log, 0o600))
	return dir, NextBoot{EventLog: filepath.Join(dir, "log"), GRUB: filepath.Join(dir, "grub.cfg")}
}

// What is about to take the place of an initramfs is foretold before it does, with
// what is there now behind it.
func TestBootWithWhatIsToComeIsForetold(t *testing.T) {
	dir, next := grubBoot(t)
	now, err := next.predictAll()
	require.NoError(t, err)
	require.Len(t, now, 1)
	require.NoError(t, now[0].unknown)

	next.Instead = map[string]string{dir + "/initrd": dir + "/next"}
	both, err := next.predictAll()
	require.NoError(t, err)
	require.Len(t, both, 2)
	assert.Equal(t, now[0].claims, both[1].claims)
	next.Instead[dir+"/initrd"] = dir + "/initrd"
	same, err := next.predictAll()
	require.NoError(t, err)
	assert.Len(t, same, 1, "each once")

	require.NoError(t, os.Rename(dir+"/next", dir+"/initrd"))
	next.Instead = nil
	after, err := next.predictAll()
	require.NoError(t, err)
	assert.Equal(t, both[0].claims, after[0].claims)

	next.GRUB, next.Instead = "", map[string]string{"a": "b"}
	otherwise, err := next.predictAll()
	require.NoError(t, err)
	require.ErrorContains(t, otherwise[0].unknown, "GRUB did not start this boot")
}
