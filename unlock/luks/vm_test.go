//go:build vm

package luks_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"keywright.dev/test/vm"
	"keywright.dev/test/vm/vmtest"
	"keywright.dev/unlock/luks"
)

// TestDeviceMapper boots a tiny guest that runs this package's tests of build tag
// vmguest as root, on disks of both sector sizes.
func TestDeviceMapper(t *testing.T) {
	dir := t.TempDir()
	initrd := filepath.Join(dir, "initrd")
	require.NoError(t, vm.Initramfs{
		Kernel:   vmtest.Kernel(t),
		Programs: append(vm.Cryptsetup(), "/usr/sbin/dmsetup"),
		Files:    []vm.File{vmtest.TestBinary(t, "vmguest", "/luks.test")},
		Script:   "/luks.test -test.v -test.run '^TestGuest' -test.timeout 5m\n",
	}.Write(initrd))
	run := vmtest.Start(t, vm.Machine{
		Name: "luks", Kernel: vmtest.Kernel(t).Image, Initrd: initrd,
		Disks: []vm.Disk{{Path: guestDisk(t, dir, 512)}, {Path: guestDisk(t, dir, 4096)}},
	})
	for _, name := range []string{
		"TestGuestMappingEqualsCryptsetups", "TestGuestReadsTheData", "TestGuestKeyStandsInNoTableAndNoKeyring",
		"TestGuestAttack11HeaderSwappedAfterValidation", "TestGuestAttack25RootThatIsNotOurs", "TestGuestInUse",
		"TestGuestHalfMadeMapping", "TestGuestNothingStaysBehind", "TestGuestKeyslotsOfALiveDevice",
	} {
		vmtest.Expect(t, run, "--- PASS: "+name+" ")
	}
	vmtest.Expect(t, run, "guest: the script ended with 0")
	require.NoError(t, run.Wait(t.Context()))
}

func guestDisk(t *testing.T, dir string, sectorSize int) string {
	root := filepath.Join(dir, "root")
	require.NoError(t, os.MkdirAll(root, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(root, "motto"), []byte("keep calm and rotate\n"), 0o644))
	disk := filepath.Join(dir, fmt.Sprintf("disk-%d", sectorSize))
	require.NoError(t, vm.LUKSDisk{Size: 40 << 20, SectorSize: sectorSize, Passphrase: key("installer"), Root: root}.Write(t.Context(), disk))
	require.NoError(t, luks.Cryptsetup{}.AddKeyslot(t.Context(), disk, key("installer"), key("machine"), 1))
	return disk
}
