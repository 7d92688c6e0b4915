//go:build vm && full

package debian_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/test/debian"
	"keywright.dev/test/packages"
	"keywright.dev/test/vm/vmtest"
)

// firstKey makes the root key as the page on operation says.
const firstKey = `keywright server --data /root/first >/dev/null 2>&1 & first=$!
until [ -S /root/first/operator.sock ]; do sleep 1; done
kill $first; wait $first
mv /root/first/root.key /etc/keywright/root.key`

// TestServiceRunsFromItsPackage has systemd start, restart and stop the service
// as its package is installed, upgraded and removed.
func TestServiceRunsFromItsPackage(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	m := debian.Machine{
		Name: "service", Dir: dir, TPM: vmtest.NewTPM(t, "service"),
		Disk: filepath.Join(dir, "disk"), Data: []string{filepath.Join(dir, "archive")},
	}
	require.NoError(t, debian.WriteDisk(ctx, m.Disk))
	debs, err := packages.Build(ctx, dir, "v1.0.0", "amd64")
	require.NoError(t, err)
	giveFile(t, m, debs.Service, servicePackage)
	g := bootByPassphrase(t, m, debian.Plain.Mapping())

	command(t, g, "tar -x -f /dev/vdb -C / && dpkg -i "+servicePackage)
	assert.Equal(t, "disabled inactive", strings.Join(strings.Fields(command(t, g, "systemctl is-enabled keywright; systemctl is-active keywright; true")), " "))
	command(t, g, firstKey)
	command(t, g, "cp /usr/share/doc/keywright/examples/keywright.toml /etc/keywright/")
	command(t, g, "systemctl enable --now keywright")
	assert.Contains(t, command(t, g, "keywright status"), "https://keywright.example.org:8443")

	const pid = "systemctl show --property MainPID --value keywright"
	before := command(t, g, pid)
	command(t, g, "dpkg -i "+servicePackage)
	assert.NotEqual(t, before, command(t, g, pid), "an upgrade restarts it")
	command(t, g, "systemctl is-active keywright")

	command(t, g, "dpkg -r keywright")
	assert.Equal(t, "inactive", strings.TrimSpace(command(t, g, "systemctl is-active keywright || true")))
	assert.Contains(t, command(t, g, "dpkg -P keywright"), "/var/lib/keywright stays")
	command(t, g, "test -e /var/lib/keywright/store.db -a -e /etc/keywright/root.key")
	assert.Empty(t, command(t, g, "find /etc/systemd -name 'keywright*'"))
	assert.Empty(t, command(t, g, "systemctl --failed --no-legend"))
	powerOff(t, g)
}
