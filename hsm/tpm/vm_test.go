//go:build vm

package tpm_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"keywright.dev/test/vm"
	"keywright.dev/test/vm/vmtest"
)

// TestOnTheKernelsDevice runs the tests named TestDevice… in a virtual machine,
// on /dev/tpmrm0.
func TestOnTheKernelsDevice(t *testing.T) {
	dir := t.TempDir()
	initrd := filepath.Join(dir, "initrd")
	require.NoError(t, vm.Initramfs{
		Kernel: vmtest.Kernel(t),
		Files:  []vm.File{vmtest.TestBinary(t, "integration", "/bin/tpm.test")},
		Script: "tpm.test -test.v -test.run '^TestDevice' -tpm /dev/tpmrm0\n",
	}.Write(initrd))
	run := vmtest.Start(t, vm.Machine{
		Name: "tpm", Kernel: vmtest.Kernel(t).Image, Initrd: initrd, TPM: vmtest.NewTPM(t, "tpm"),
		Firmware: vm.OVMF, NVRAM: filepath.Join(dir, "nvram"), // leaves an event log
		// A busy host delays the ticks that the kernel looks for.
		Cmdline: vm.DefaultCmdline + " no_timer_check",
	})
	for _, name := range []string{
		"TestDeviceActivatesACredential", "TestDeviceQuotes", "TestDeviceCollectsWhatTheLogSays", "TestDeviceLeavesNothingBehind",
	} {
		vmtest.Expect(t, run, "--- PASS: "+name)
	}
	vmtest.Expect(t, run, "guest: the script ended with 0")
}
