//go:build integration

package vm_test

import (
	"bytes"
	"crypto/x509"
	"debug/pe"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
	"keywright.dev/test/swtpm"
	"keywright.dev/test/vm"
	"keywright.dev/test/vm/vmtest"
)

// TestInitramfsIsReadByCpio lists the archive with other people's programs.
func TestInitramfsIsReadByCpio(t *testing.T) {
	image := filepath.Join(t.TempDir(), "initrd")
	initramfs := vm.Initramfs{Kernel: vmtest.Kernel(t), Programs: vm.Cryptsetup(), Script: "true\n"}
	require.NoError(t, initramfs.Write(image))
	list, err := exec.Command("sh", "-c", "zstd -dc "+image+" | cpio -t --quiet").CombinedOutput()
	require.NoError(t, err, string(list))
	for _, file := range []string{
		"init", "script", "bin/busybox", "lib/modules/order", "usr/sbin/cryptsetup", "lib64/ld-linux-x86-64.so.2",
		"lib/x86_64-linux-gnu/libcryptsetup.so.12", "lib/x86_64-linux-gnu/libgcc_s.so.1", "lib/modules/dm-crypt.ko",
	} {
		assert.Contains(t, strings.Split(string(list), "\n"), file)
	}
}

// TestImagesAreReproducible builds all that is measured twice, with a second between.
func TestImagesAreReproducible(t *testing.T) {
	first := buildESP(t)
	time.Sleep(2100 * time.Millisecond) // FAT counts two seconds
	second := buildESP(t)
	for _, name := range []string{"initrd", "uki.efi", "esp"} {
		assert.True(t, bytes.Equal(readFile(t, first, name), readFile(t, second, name)), name)
	}
}

func buildESP(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	uki := vm.UKI{Kernel: vmtest.Kernel(t), Initrd: filepath.Join(dir, "initrd"), Cmdline: "quiet", OSRelease: "ID=x\n"}
	require.NoError(t, vm.Initramfs{Kernel: uki.Kernel, Script: "true\n"}.Write(uki.Initrd))
	require.NoError(t, uki.Write(t.Context(), filepath.Join(dir, "uki.efi")))
	require.NoError(t, vm.WriteESP(t.Context(), filepath.Join(dir, "esp"), filepath.Join(dir, "uki.efi")))
	return dir
}

func TestUKISections(t *testing.T) {
	dir := t.TempDir()
	initrd, image := filepath.Join(dir, "initrd"), filepath.Join(dir, "uki.efi")
	require.NoError(t, os.WriteFile(initrd, bytes.Repeat([]byte("i"), 5000), 0o600))
	key, err := vm.SnakeoilKey(t.Context(), dir)
	require.NoError(t, err)
	uki := vm.UKI{Kernel: vmtest.Kernel(t), Initrd: initrd, Cmdline: "quiet root=x", OSRelease: "ID=x\n", SignWith: key}
	require.NoError(t, uki.Write(t.Context(), image))

	f, err := pe.Open(image)
	require.NoError(t, err)
	defer f.Close()
	var end uint32
	for _, section := range f.Sections {
		assert.GreaterOrEqual(t, section.VirtualAddress, end, "%s overlaps", section.Name)
		end = section.VirtualAddress + section.VirtualSize
	}
	assert.Equal(t, ".linux", f.Sections[len(f.Sections)-1].Name)
	for name, want := range map[string]string{
		".cmdline": "quiet root=x", ".osrel": "ID=x\n", ".uname": uki.Kernel.Release(), ".initrd": strings.Repeat("i", 5000),
	} {
		section := f.Section(name)
		require.NotNil(t, section, name)
		content, err := section.Data()
		require.NoError(t, err)
		assert.Equal(t, want, string(content[:section.VirtualSize]))
		assert.Zero(t, section.VirtualAddress%4096)
	}
	output, err := exec.Command("sbverify", "--cert", key.Cert, image).CombinedOutput()
	assert.NoError(t, err, string(output))
}

func TestTPMHasCertifiedEK(t *testing.T) {
	tpm := vmtest.NewTPM(t, "certified")
	ek, err := tpm.EK()
	require.NoError(t, err)
	assert.Equal(t, exchange.EKP384, ek.Template, "what a guest prefers of a TPM with both certificates")
	device := vmtest.PowerOn(t, tpm)
	template, err := ek.Template.Template()
	require.NoError(t, err)
	made, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(template)}.Execute(device)
	require.NoError(t, err)
	assert.Equal(t, made.OutPublic.Bytes(), ek.Public)

	certs := tpm.CACertificates()
	issuer, root := readCertificate(t, certs[0]), readCertificate(t, certs[1])
	assert.NoError(t, issuer.CheckSignatureFrom(root))
	assert.NoError(t, root.CheckSignatureFrom(root))
	for _, index := range []tpm2.TPMHandle{0x01C00002, 0x01C00016} {
		read, err := tpm2.NVReadPublic{NVIndex: index}.Execute(device)
		require.NoError(t, err, "no EK certificate at %#x", index)
		contents, err := read.NVPublic.Contents()
		require.NoError(t, err)
		assert.NotZero(t, contents.DataSize)
	}
}

// TestTPMCounters tells a clone by what it keeps: keys and counters as they
// were, while the original moves on.
func TestTPMCounters(t *testing.T) {
	tpm := vmtest.NewTPM(t, "original")
	device := vmtest.PowerOn(t, tpm)
	before := resetCount(t, device)
	require.NoError(t, device.Reset())
	assert.Equal(t, before+1, resetCount(t, device))

	clone, err := tpm.Clone(t.TempDir(), "clone")
	require.NoError(t, err)
	require.NoError(t, device.Reset())
	require.NoError(t, device.Reset())
	cloned := vmtest.PowerOn(t, clone)
	assert.Less(t, resetCount(t, cloned), resetCount(t, device))
	for _, which := range []*vm.TPM{tpm, clone} {
		_, err := which.EK()
		require.NoError(t, err)
	}
}

func TestLUKSDiskOpens(t *testing.T) {
	dir := t.TempDir()
	passphrase := secret.New([]byte("correct horse"))
	disk := filepath.Join(dir, "disk")
	require.NoError(t, vm.LUKSDisk{
		Size: 32 << 20, SectorSize: 512, Passphrase: passphrase, Root: t.TempDir(),
	}.Write(t.Context(), disk))
	cmd := exec.Command("/usr/sbin/cryptsetup", "open", "--test-passphrase", "--key-file", "-", disk)
	cmd.Stdin = bytes.NewReader(passphrase.Expose())
	output, err := cmd.CombinedOutput()
	assert.NoError(t, err, string(output))
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	assert.Equal(t, []string{disk}, left, "the plain file system is gone")
}

func resetCount(t *testing.T, device *swtpm.TPM) uint32 {
	t.Helper()
	clock, err := tpm2.ReadClock{}.Execute(device)
	require.NoError(t, err)
	return clock.CurrentTime.ClockInfo.ResetCount
}

func readCertificate(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(readFile(t, path))
	require.NotNil(t, block, path)
	cert, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	return cert
}

func readFile(t *testing.T, path ...string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(path...))
	require.NoError(t, err)
	return content
}
