// Package vmtest is test/vm for tests: what fails ends the test, and what was
// started ends with it.
package vmtest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"keywright.dev/test/swtpm"
	"keywright.dev/test/vm"
)

// Start boots the machine; its power is cut when the test ends. A failed test
// shows the console.
func Start(t *testing.T, m vm.Machine) *vm.Run {
	t.Helper()
	run, err := m.Start(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() {
		run.Kill()
		if t.Failed() {
			t.Logf("console of %s:\n%s", m.Name, run.Log())
		}
	})
	return run
}

// Expect is [vm.Run.Expect].
func Expect(t *testing.T, run *vm.Run, markers ...string) string {
	t.Helper()
	line, err := run.Expect(t.Context(), markers...)
	require.NoError(t, err)
	return line
}

// NewTPM makes a software TPM in a folder of the test's.
func NewTPM(t *testing.T, name string) *vm.TPM {
	t.Helper()
	tpm, err := vm.NewTPM(t.TempDir(), name)
	require.NoError(t, err)
	return tpm
}

// PowerOn powers the TPM on for the test.
func PowerOn(t *testing.T, tpm *vm.TPM) *swtpm.TPM {
	t.Helper()
	device, err := tpm.PowerOn()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, device.Close()) })
	return device
}

// Kernel returns the guest's kernel.
func Kernel(t *testing.T) vm.Kernel {
	t.Helper()
	kernel, err := vm.FindKernel()
	require.NoError(t, err)
	return kernel
}
