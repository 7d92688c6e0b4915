//go:build vm

package debian_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"keywright.dev/test/debian"
	"keywright.dev/test/e2e"
	"keywright.dev/test/packages"
	"keywright.dev/test/vm"
	"keywright.dev/test/vm/vmtest"
)

// site is a service and one Debian server.
type site struct {
	service *e2e.Service
	machine debian.Machine
	mapping string // of the encrypted partition
}

func newSite(t *testing.T) *site {
	t.Helper()
	return newSiteOf(t, debian.Plain)
}

// newSiteOf makes a site with a server of a layout.
func newSiteOf(t *testing.T, layout debian.Layout) *site {
	t.Helper()
	ctx, dir := t.Context(), t.TempDir()
	programs, err := e2e.Build(ctx, dir)
	require.NoError(t, err)
	service, err := e2e.ServiceConfig{Program: programs.Service, Dir: dir}.Start(ctx)
	require.NoError(t, err)
	t.Cleanup(service.Stop)
	m := debian.Machine{
		Name: "debian", Dir: dir, TPM: vmtest.NewTPM(t, "debian"),
		Disk: filepath.Join(dir, "disk"), Data: []string{filepath.Join(dir, "archive")},
	}
	require.NoError(t, layout.WriteDisk(ctx, m.Disk))
	debs, err := packages.Build(ctx, dir, "v1.0.0", "amd64")
	require.NoError(t, err)
	giveFile(t, m, debs.Unlock, clientPackage)
	return &site{service, m, layout.Mapping()}
}

// Where the guest finds packages.
const (
	clientPackage  = "/root/keywright-unlock.deb"
	servicePackage = "/root/keywright.deb"
)

// giveFile puts a file of the host into the archive that the machine has as a disk.
func giveFile(t *testing.T, m debian.Machine, path, name string) {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, debian.WriteArchive(m.Data[0], vm.File{Path: name, Mode: 0o644, Content: content}))
}

// bootByPassphrase boots the server and types its passphrase.
func (s *site) bootByPassphrase(t *testing.T) *debian.Guest {
	t.Helper()
	return bootByPassphrase(t, s.machine, s.mapping, s.service.Port())
}

func bootByPassphrase(t *testing.T, m debian.Machine, mapping string, ports ...int) *debian.Guest {
	t.Helper()
	ctx := t.Context()
	g := boot(t, m, ports...)
	require.NoError(t, g.Answer(ctx, "Please unlock disk "+mapping+": ", debian.Passphrase()))
	require.NoError(t, g.Login(ctx))
	return g
}

// enroll installs the client's package and enrols the server.
func (s *site) enroll(t *testing.T, g *debian.Guest) string {
	t.Helper()
	return s.enrollAs(t, g, "web-17")
}

func (s *site) enrollAs(t *testing.T, g *debian.Guest, name string) string {
	t.Helper()
	installClient(t, g)
	return command(t, g, typed+"keywright-unlock enroll --name "+name+" --server "+s.service.URL+" --service-key "+s.service.Key+" --passphrase-fd 0")
}

// installClient installs the client's package.
func installClient(t *testing.T, g *debian.Guest) {
	t.Helper()
	command(t, g, "tar -x -f /dev/vdb -C / && dpkg -i "+clientPackage)
}

// typed gives the passphrase to a command.
var typed = "printf %s '" + string(debian.Passphrase().Expose()) + "' | "

func powerOff(t *testing.T, g *debian.Guest) {
	t.Helper()
	require.NoError(t, g.Send([]byte("poweroff\n")))
	require.NoError(t, g.Wait(t.Context()))
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
