//go:build vm

package debian_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/test/debian"
	"keywright.dev/test/vm/vmtest"
)

// TestInstalledSystemBoots boots what the installer left: firmware, shim, GRUB,
// the passphrase, systemd.
func TestInstalledSystemBoots(t *testing.T) {
	dir := t.TempDir()
	m := debian.Machine{Name: "debian", Dir: dir, TPM: vmtest.NewTPM(t, "debian"), Disk: filepath.Join(dir, "disk")}
	require.NoError(t, debian.WriteDisk(t.Context(), m.Disk))
	g, err := m.Boot(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() {
		g.Kill()
		if t.Failed() {
			t.Log(g.Log())
		}
	})
	require.NoError(t, g.Answer(t.Context(), "Please unlock disk root: ", debian.Passphrase()))
	require.NoError(t, g.Login(t.Context()))
	out, err := g.Command(t.Context(), "systemctl --failed --no-legend; findmnt -no SOURCE /; cat /proc/cmdline; ls /boot/grub; mokutil --sb-state; systemd-analyze")
	t.Log(out, err)
	assert.Contains(t, out, "/dev/mapper/root")
}
