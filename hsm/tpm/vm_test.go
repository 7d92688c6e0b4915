//go:build vm

package tpm_test

import (
	"os"
	"os/exec"
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
	binary := filepath.Join(dir, "tpm.test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", "integration", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	content, err := os.ReadFile(binary)
	require.NoError(t, err)

	initrd := filepath.Join(dir, "initrd")
	require.NoError(t, vm.Initramfs{
		Kernel: vmtest.Kernel(t),
		Files:  []vm.File{{Path: "/bin/tpm.test", Mode: 0o755, Content: content}},
		Script: "tpm.test -test.v -test.run '^TestDevice' -tpm /dev/tpmrm0 && echo all of them passed\n",
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
	vmtest.Expect(t, run, "all of them passed")
}
