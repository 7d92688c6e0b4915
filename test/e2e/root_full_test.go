//go:build vm && full

package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/secret"
	"keywright.dev/test/e2e"
	"keywright.dev/test/vm"
	"keywright.dev/test/vm/vmtest"
	"keywright.dev/unlock"
	"keywright.dev/unlock/luks"
)

// TestAttack10And25RootOfAThief has a thief who holds the disks of an approved machine
// bring a root of his own, in two ways.
func TestAttack10And25RootOfAThief(t *testing.T) {
	s := newSite(t, time.Minute)
	ctx := t.Context()
	// As distributions do, the initramfs mounts the file system of a UUID.
	s.image.Root = vm.FileSystemUUID
	require.NoError(t, s.image.WriteInitrd(s.path("initrd")))
	s.writeESP("esp", "")
	run := s.bootToEnrolment(ctx)
	vmtest.Expect(t, run, "system: enrolled")
	require.NoError(t, run.Wait(ctx))
	ek, err := s.machine.TPM.EK()
	require.NoError(t, err)
	s.operate("machine", "approve", name, "--ek-hash", ek.MachineID())
	s.machine.Keep = false

	// Row 10: the keys come, the volume is open, and a disk in the clear has the
	// UUID of its file system.
	t.Run("file system in the clear", func(t *testing.T) {
		thief := s.machine
		thief.More = []string{s.plaintextRoot()}
		run := s.boot(ctx, thief, "esp")
		vmtest.Expect(t, run, "keywright: opened")
		refused := vmtest.Expect(t, run, "keywright KW-", "rogue: ")
		assert.Contains(t, refused, "KW-1407")
		assert.Contains(t, refused, "resetting the machine")
		require.NoError(t, run.Wait(ctx), "it is reset")
		assert.NotContains(t, run.Log(), "rogue: ")
	})
	// Row 11: a volume of his own, with the UUID, our token and a passphrase that
	// he knows, in the place of the machine's.
	t.Run("volume with a known passphrase", func(t *testing.T) {
		known := secret.Copy([]byte("known to a thief"))
		thief := s.machine
		thief.Disk = s.swappedVolume(known)
		run := s.boot(ctx, thief, "esp")
		assert.Contains(t, vmtest.Expect(t, run, "keywright KW-", "keywright: opened"), "KW-1211 refused")
		require.NoError(t, run.Answer(ctx, e2e.DiskPrompt, known))
		vmtest.Expect(t, run, "system: of a thief")
		assert.Contains(t, vmtest.Expect(t, run, "rogue: "), "got nothing: KW-12")
		require.NoError(t, run.Wait(ctx))
	})
}

// plaintextRoot makes a disk with a system in the clear, whose file system has
// the UUID of the encrypted one.
func (s *site) plaintextRoot() string {
	s.t.Helper()
	busybox, err := os.ReadFile("/bin/busybox")
	require.NoError(s.t, err)
	root, disk := s.path("rogue"), s.path("rogue-disk")
	for _, dir := range []string{"bin", "sbin", "dev", "proc", "sys", "run"} {
		require.NoError(s.t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	require.NoError(s.t, os.WriteFile(filepath.Join(root, "bin/busybox"), busybox, 0o755))
	require.NoError(s.t, os.WriteFile(filepath.Join(root, "sbin/init"), []byte("#!/bin/busybox sh\n"+
		"echo rogue: sees $(/bin/busybox ls /dev/mapper)\n/bin/busybox poweroff -f\n"), 0o755))
	out, err := exec.Command("/usr/sbin/mke2fs", "-q", "-t", "ext4", "-U", vm.FileSystemUUID, "-d", root, disk, "32M").CombinedOutput()
	require.NoError(s.t, err, "%s", out)
	return disk
}

// swappedVolume makes a disk that is the enrolled one by its UUID and our token.
func (s *site) swappedVolume(passphrase secret.Bytes) string {
	s.t.Helper()
	ctx, disk, program := s.t.Context(), s.path("swapped"), luks.Cryptsetup{}
	settings := s.path("thief.toml")
	require.NoError(s.t, (&unlock.Config{
		Servers: []string{s.service.URL}, ServiceKeys: []string{s.service.Key},
		Volumes: []unlock.VolumeConfig{{Device: "UUID=" + s.image.Volume, Name: "root", Root: true}},
	}).Write(settings))
	config, err := os.ReadFile(settings)
	require.NoError(s.t, err)
	_, err = e2e.System{
		Unlock: s.programs.Unlock, Server: s.service.URL, Key: s.service.Key, Name: name, Motto: "of a thief", Task: "rogue",
		Files: []vm.File{
			{Path: "/etc/enrolled", Mode: 0o644},
			{Path: unlock.DefaultConfig, Mode: 0o644, Content: config},
			{Path: "/usr/bin/rogue", Mode: 0o755, Content: buildRogue(s.t)},
		},
	}.WriteDisk(ctx, disk, passphrase)
	require.NoError(s.t, err)
	enrolled, err := e2e.ReadHeader(s.machine.Disk)
	require.NoError(s.t, err)
	out, err := exec.Command("/usr/sbin/cryptsetup", "luksUUID", "-q", "--uuid", enrolled.Header().UUID, disk).CombinedOutput()
	require.NoError(s.t, err, "%s", out)
	own := enrolled.OwnTokens()[0]
	require.NoError(s.t, program.AddKeyslot(ctx, disk, passphrase, secret.Copy([]byte("of a thief")), own.Keyslots[0]))
	require.NoError(s.t, program.ImportToken(ctx, disk, own.ID, own.Token))
	return disk
}
