// Package vmtest is test/vm for tests: what fails ends the test, and what was
// started ends with it.
package vmtest

import (
	"os"
	"os/exec"
	"path/filepath"
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

// TestBinary compiles the tests of the caller's package under a build tag, to run
// as path in a guest.
func TestBinary(t *testing.T, tag, path string) vm.File {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", tag, "-o", binary, ".")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	content, err := os.ReadFile(binary)
	require.NoError(t, err)
	return vm.File{Path: path, Mode: 0o755, Content: content}
}

// Kernel returns the guest's kernel.
func Kernel(t *testing.T) vm.Kernel {
	t.Helper()
	kernel, err := vm.FindKernel()
	require.NoError(t, err)
	return kernel
}
