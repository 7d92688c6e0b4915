//go:build integration

package packages_test

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/test/packages"
)

// system is a tree with the packages of two versions in /root.
type system struct {
	*packages.Tree
	t *testing.T
}

func newSystem(t *testing.T, older, newer packages.Debs) *system {
	t.Helper()
	tree, err := packages.NewTree(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, tree.Close(context.WithoutCancel(t.Context()))) })
	s := &system{tree, t}
	s.take(older.Service, "/root/keywright-1.deb")
	s.take(older.Unlock, "/root/keywright-unlock-1.deb")
	s.take(newer.Service, "/root/keywright-2.deb")
	s.take(newer.Unlock, "/root/keywright-unlock-2.deb")
	return s
}

// take copies a file of the host into the tree.
func (s *system) take(path, name string) {
	s.t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(s.t, err)
	require.NoError(s.t, s.Write(name, string(content), 0o644))
}

func (s *system) run(command string) string {
	s.t.Helper()
	out, err := s.Run(s.t.Context(), command)
	require.NoError(s.t, err)
	return out
}

// ours lists what of ours is in the tree, but for the packages themselves and
// what dpkg wrote down of them.
func (s *system) ours() []string {
	s.t.Helper()
	return strings.Fields(s.run("find / -xdev -name '*keywright*' -not -path '/root/*' -not -path '/var/lib/dpkg/info/*' -not -path '/tmp/*' -print"))
}

// inInitramfs lists what of ours is in the initramfs.
func (s *system) inInitramfs() []string {
	s.t.Helper()
	return strings.Fields(s.run("lsinitramfs /boot/initrd.img-* | grep -E 'keywright' || true"))
}

// without leaves out what was there before.
func without(list, before []string) []string {
	return slices.DeleteFunc(list, func(path string) bool { return slices.Contains(before, path) })
}

func (s *system) enrolled(is bool) {
	s.t.Helper()
	const path = "/etc/keywright/unlock.toml"
	if is {
		require.NoError(s.t, s.Write(path, "# as enroll writes it\n", 0o644))
	} else {
		require.NoError(s.t, os.Remove(s.Path(path)))
	}
}

const generates = "update-initramfs: Generating /boot/initrd.img-"

// hasClient holds that the initramfs is that of an enrolled machine.
func (s *system) hasClient(t *testing.T) {
	t.Helper()
	list := s.inInitramfs()
	for _, path := range []string{
		"usr/sbin/keywright-unlock", "etc/keywright/unlock.toml",
		"scripts/local-top/keywright", "scripts/init-bottom/keywright", "scripts/panic/keywright",
	} {
		assert.Contains(t, list, path)
	}
}

// TestPackagesAreInstalledAndPurged goes through the lives of both packages.
func TestPackagesAreInstalledAndPurged(t *testing.T) {
	s := newSystem(t, build(t, "v1.0.0", "amd64"), build(t, "v1.0.1", "amd64"))
	t.Run("client", s.client)
	t.Run("service", s.service)
}

// client goes through the life of the package on a machine
// that is enrolled meanwhile.
func (s *system) client(t *testing.T) {
	before := s.ours()

	out := s.run("dpkg -i /root/keywright-unlock-1.deb")
	assert.NotContains(t, out, "initramfs", "nothing is enrolled")
	s.run("update-initramfs -u")
	assert.Empty(t, s.inInitramfs())
	assert.Equal(t, "keywright-unlock v1.0.0\n", s.run("keywright-unlock version"))

	s.enrolled(true)
	out = s.run("dpkg -i /root/keywright-unlock-2.deb")
	assert.Contains(t, out, "Making every initramfs anew")
	s.hasClient(t)
	s.verify("keywright-unlock-agent.service keywright-unlock-stage.timer keywright-unlock-stage.path")

	out = s.run("dpkg -r keywright-unlock")
	assert.Contains(t, out, "Without the package its next boot asks for the passphrase")
	assert.Contains(t, out, generates)
	assert.Empty(t, s.inInitramfs())

	t.Run("purged while enrolled", func(t *testing.T) {
		assert.Contains(t, s.run("dpkg -P keywright-unlock"), "/etc/keywright/unlock.toml stays")
		assert.Equal(t, []string{"/etc/keywright"}, without(s.ours(), before))
	})
	t.Run("without a package", s.withoutPackage)

	s.enrolled(false)
	require.NoError(t, os.Remove(s.Path(changedScript)))
	out = s.run("update-initramfs -u && dpkg -P keywright-unlock")
	assert.NotContains(t, out, "Without the package")
	assert.Empty(t, s.inInitramfs())
	assert.Equal(t, before, s.ours(), "nothing is left")
}

const changedScript = "/etc/initramfs-tools/scripts/panic/keywright"

// withoutPackage has the program itself write the scripts, as enroll does, and
// then brings the package.
func (s *system) withoutPackage(t *testing.T) {
	s.run("dpkg-deb --fsys-tarfile /root/keywright-unlock-1.deb | tar -x -C / ./usr/sbin/keywright-unlock")
	s.run("keywright-unlock initramfs")
	s.hasClient(t)
	written := s.run("cat /etc/initramfs-tools/hooks/keywright")
	assert.Contains(t, written, "\n# keywright-unlock wrote this file; SHA-256 of its other lines: ")

	text, err := os.ReadFile(s.Path(changedScript))
	require.NoError(t, err)
	require.NoError(t, s.Write(changedScript, string(text)+"# somebody's own line\n", 0o755))
	_, err = s.Run(t.Context(), "keywright-unlock initramfs")
	require.ErrorContains(t, err, changedScript+": somebody changed it")

	out := s.run("dpkg -i /root/keywright-unlock-2.deb")
	assert.Contains(t, out, changedScript+" is not ours and runs in place of the package's script")
	assert.Equal(t, changedScript, strings.TrimSpace(s.run("find /etc/initramfs-tools -name keywright")))
	s.hasClient(t)
}

// service sees that the keys of a fleet survive.
func (s *system) service(t *testing.T) {
	before := s.ours()

	s.run("dpkg -i /root/keywright-1.deb")
	assert.Equal(t, "/var/lib/keywright 700 keywright\n/var/lib/keywright/backup 700 keywright\n", s.run("stat -c '%n %a %U' /var/lib/keywright /var/lib/keywright/backup"))
	assert.Contains(t, s.run("getent passwd keywright"), ":/var/lib/keywright:/usr/sbin/nologin")
	_, err := os.Lstat(s.Path("/etc/systemd/system/multi-user.target.wants/keywright.service"))
	require.ErrorIs(t, err, os.ErrNotExist, "nobody enabled it")
	s.run("keywright config check /usr/share/doc/keywright/examples/keywright.toml")
	assert.Equal(t, "keywright v1.0.0\n", s.run("keywright version"))
	s.run("systemd-analyze verify keywright.service")
	s.verifyRotation()
	s.run("dpkg -P keywright")
	assert.Equal(t, before, s.ours(), "nothing is left where nothing was stored")

	s.run("dpkg -i /root/keywright-1.deb && systemctl enable keywright")
	for path, text := range map[string]string{"/var/lib/keywright/store.db": "rows", "/etc/keywright/root.key": "key"} {
		s.run("echo " + text + " >" + path)
	}
	s.run("dpkg -i /root/keywright-2.deb && dpkg -r keywright")
	out := s.run("dpkg -P keywright")
	assert.Contains(t, out, "/var/lib/keywright stays")
	assert.Contains(t, out, "/etc/keywright stays")
	assert.Equal(t, []string{"/etc/keywright", "/var/lib/keywright"}, without(s.ours(), before))
	assert.Equal(t, "rows\nkey\n", s.run("cat /var/lib/keywright/store.db /etc/keywright/root.key"))
}
