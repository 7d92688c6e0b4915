//go:build vm

package debian_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/test/debian"
	"keywright.dev/test/e2e"
	"keywright.dev/test/vm"
	"keywright.dev/test/vm/vmtest"
)

// TestServerUnlocksItself has a stock Debian server (shim, GRUB, initramfs-tools)
// enrol itself and boot unattended.
func TestServerUnlocksItself(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	programs, err := e2e.Build(ctx, dir)
	require.NoError(t, err)
	service, err := e2e.ServiceConfig{Program: programs.Service, Dir: dir}.Start(ctx)
	require.NoError(t, err)
	t.Cleanup(func() { service.Stop() })
	m := debian.Machine{
		Name: "debian", Dir: dir, TPM: vmtest.NewTPM(t, "debian"),
		Disk: filepath.Join(dir, "disk"), Data: []string{filepath.Join(dir, "archive")},
	}
	require.NoError(t, debian.WriteDisk(ctx, m.Disk))
	program, err := os.ReadFile(programs.Unlock)
	require.NoError(t, err)
	require.NoError(t, debian.WriteArchive(m.Data[0], vm.File{Path: "/usr/sbin/keywright-unlock", Mode: 0o755, Content: program}))

	g := boot(t, m, service.Port())
	require.NoError(t, g.Answer(ctx, "Please unlock disk root: ", debian.Passphrase()))
	require.NoError(t, g.Login(ctx))
	command(t, g, "tar -x -f /dev/vdb -C /")
	out := command(t, g, "printf %s '"+string(debian.Passphrase().Expose())+"' | keywright-unlock enroll --name web-17 --server "+service.URL+
		" --service-key "+service.Key+" --passphrase-fd 0")
	assert.Contains(t, out, "(from GRUB's entry \"Debian GNU/Linux\")")
	require.NoError(t, g.Send([]byte("poweroff\n")))
	require.NoError(t, g.Wait(ctx))

	ek, err := m.TPM.EK()
	require.NoError(t, err)
	_, err = service.Operate(ctx, "machine", "approve", "web-17", "--ek-hash", ek.MachineID())
	require.NoError(t, err)
	g = boot(t, m, service.Port())
	_, err = g.Expect(ctx, "keywright: opened")
	require.NoError(t, err)
	require.NoError(t, g.Login(ctx))
	assert.Empty(t, command(t, g, "systemctl --failed --no-legend"))
	assert.Contains(t, command(t, g, "cryptsetup status root"), "is active and is in use")
	require.NoError(t, g.Send([]byte("poweroff\n")))
	require.NoError(t, g.Wait(ctx))
}

func boot(t *testing.T, m debian.Machine, ports ...int) *debian.Guest {
	t.Helper()
	g, err := m.Boot(t.Context(), ports...)
	require.NoError(t, err)
	t.Cleanup(func() {
		g.Kill()
		if t.Failed() {
			t.Logf("console of %s:\n%s", m.Name, g.Log())
		}
	})
	return g
}

func command(t *testing.T, g *debian.Guest, line string) string {
	t.Helper()
	out, err := g.Command(t.Context(), line)
	require.NoError(t, err)
	return out
}
