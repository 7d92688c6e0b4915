//go:build vm

package unlock_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"keywright.dev/kms/secret"
	"keywright.dev/test/vm"
	"keywright.dev/test/vm/vmtest"
	"keywright.dev/unlock/luks"
)

// TestOnDeviceMapper boots a tiny guest that runs this package's tests of build
// tag vmguest as root.
func TestOnDeviceMapper(t *testing.T) {
	dir := t.TempDir()
	initrd := filepath.Join(dir, "initrd")
	files := []vm.File{vmtest.TestBinary(t, "vmguest", "/unlock.test")}
	for _, image := range []string{"enrolled", "aes256-4096"} {
		path := filepath.Join("luks", "testdata", "headers", image+".img")
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		files = append(files, vm.File{Path: "/" + path, Mode: 0o644, Content: content})
	}
	require.NoError(t, vm.Initramfs{
		Kernel: vmtest.Kernel(t), Programs: []string{"/usr/sbin/dmsetup"}, Files: files,
		Script: "cd / && /unlock.test -test.v -test.run '^TestGuest' -test.timeout 5m\n",
	}.Write(initrd))
	run := vmtest.Start(t, vm.Machine{
		Name: "unlock", Kernel: vmtest.Kernel(t).Image, Initrd: initrd,
		Disks: []vm.Disk{{Path: enrolledDisk(t, dir)}, {Path: plainDisk(t, dir)}},
	})
	for _, name := range []string{
		"TestGuestRootIsHandedOver", "TestGuestAttack25RootOnAnotherDevice", "TestGuestAttack25TableChanged", "TestGuestOpenVolumesAreListed",
		"TestGuestAttack16ShellAfterARelease", "TestGuestAttack16ShellBesideAMountedRoot", "TestGuestVolumeInUseIsNotAskedFor", "TestGuestWithoutDeviceMapper", "TestGuestMemoryIsLocked",
	} {
		vmtest.Expect(t, run, "--- PASS: "+name+" ")
	}
	vmtest.Expect(t, run, "guest: the script ended with 0")
}

// enrolledDisk is a volume with a keyslot and a token of ours.
func enrolledDisk(t *testing.T, dir string) string {
	t.Helper()
	ctx, program, disk := t.Context(), luks.Cryptsetup{}, filepath.Join(dir, "enrolled")
	installer := secret.Copy([]byte("installer"))
	require.NoError(t, vm.LUKSDisk{Size: 40 << 20, Passphrase: installer, Root: t.TempDir()}.Write(ctx, disk))
	require.NoError(t, program.AddKeyslot(ctx, disk, installer, secret.Copy([]byte("machine")), 1))
	require.NoError(t, program.ImportToken(ctx, disk, 0, luks.Token{Volume: "vol-a", Resume: "res-a", Version: 1, Slot: 1, Keyslots: []int{1}}))
	return disk
}

// plainDisk is a file system that anybody can write to.
func plainDisk(t *testing.T, dir string) string {
	t.Helper()
	disk := filepath.Join(dir, "plain")
	out, err := exec.Command("/usr/sbin/mke2fs", "-q", "-t", "ext4", disk, "16M").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return disk
}
