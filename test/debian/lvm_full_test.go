//go:build vm && full

package debian_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/test/debian"
)

const (
	dataSize = 64 << 20
	// makeData adds a data volume as an administrator does.
	makeData = `(set -e
key() { ` + typedPassphrase + `; }
key | cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file - /dev/vdc
key | cryptsetup open --allow-discards --key-file - /dev/vdc data
mkfs.ext4 -q /dev/mapper/data
echo "data UUID=$(blkid -o value -s UUID /dev/vdc) none luks,discard" >>/etc/crypttab
echo "/dev/mapper/data /srv ext4 defaults 0 2" >>/etc/fstab
systemctl daemon-reload
mount /srv
echo kept >/srv/file)`
	typedPassphrase = `printf %s 'typed by the installer'`
)

// newLVMSite has a server with LVM on LUKS, swap that it resumes from, and a
// second disk.
func newLVMSite(t *testing.T) *site {
	t.Helper()
	s := newSiteOf(t, debian.LVM)
	s.addDisk(t, "data-disk")
	return s
}

// addDisk adds a blank disk.
func (s *site) addDisk(t *testing.T, name string) {
	t.Helper()
	path := filepath.Join(s.machine.Dir, name)
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.NoError(t, os.Truncate(path, dataSize))
	s.machine.Data = append(s.machine.Data, path)
}

// enrollBoth makes a data volume on the second disk, enrols it and the root's at
// once, and has the server approved. What is prepared before is run as root; it
// returns what that printed, and what Debian, which opened all of it, said when
// it shut down.
func (s *site) enrollBoth(t *testing.T, prepare string) (printed string, shutdown []string) {
	t.Helper()
	g := s.bootByPassphrase(t)
	command(t, g, makeData)
	printed = command(t, g, prepare)
	said := s.enroll(t, g)
	assert.Contains(t, said, "/dev/vda3")
	assert.Contains(t, said, "/dev/vdc")
	assert.NotContains(t, said, "/ is on none of these volumes")
	shutdown = shutDown(t, g)
	s.approve(t)
	return printed, shutdown
}

// approve approves the server's enrolment.
func (s *site) approve(t *testing.T) {
	t.Helper()
	s.approveAs(t, "web-17")
}

func (s *site) approveAs(t *testing.T, name string) {
	t.Helper()
	ek, err := s.machine.TPM.EK()
	require.NoError(t, err)
	_, err = s.service.Operate(t.Context(), "machine", "approve", name, "--ek-hash", ek.MachineID())
	require.NoError(t, err)
}

// bootUnattended boots the approved server, at which nobody sits.
func (s *site) bootUnattended(t *testing.T) *debian.Guest {
	t.Helper()
	g := boot(t, s.machine, s.service.Port())
	_, err := g.Expect(t.Context(), "keywright: opened")
	require.NoError(t, err)
	return g
}

// TestServerOnLVM has Debian go on as if its own tools had opened the volumes, also
// after its agent has rekeyed both.
func TestServerOnLVM(t *testing.T) {
	s := newLVMSite(t)
	_, usual := s.enrollBoth(t, "true")
	g := s.bootUnattended(t)
	require.NoError(t, g.Login(t.Context()))
	for _, complaint := range []string{"Please unlock disk", "Please enter passphrase", "Gave up waiting", "[FAILED]"} {
		assert.NotContains(t, g.Log(), complaint)
	}
	assert.Equal(t, "running", strings.TrimSpace(command(t, g, "systemctl is-system-running --wait")))
	assert.Empty(t, command(t, g, "systemctl --failed --no-legend"))

	devices := command(t, g, "lsblk --raw --noheadings --output NAME,TYPE,MOUNTPOINTS")
	for _, line := range []string{"vda3_crypt crypt ", "debian--vg-root lvm /", "debian--vg-swap_1 lvm [SWAP]", "data crypt /srv"} {
		assert.Contains(t, devices, line)
	}
	for _, mapping := range []string{"vda3_crypt", "data"} {
		status := command(t, g, "cryptsetup status "+mapping)
		assert.Contains(t, status, "is active and is in use")
		assert.Contains(t, status, "LUKS2")
		assert.Contains(t, status, "discards")
		assert.Contains(t, command(t, g, "systemctl show --property ActiveState systemd-cryptsetup@"+mapping), "=active")
	}
	assert.Equal(t, "kept", strings.TrimSpace(command(t, g, "cat /srv/file")))
	swap := command(t, g, "lsblk --noheadings --nodeps --output MAJ:MIN /dev/mapper/debian--vg-swap_1")
	assert.Equal(t, strings.TrimSpace(swap), strings.TrimSpace(command(t, g, "cat /sys/power/resume")))
	assert.Contains(t, command(t, g, "swapon --show=TYPE --noheadings"), "partition")

	said := command(t, g, "update-initramfs -u")
	assert.NotRegexp(t, `(?im)warning|error|failed|^W:`, said)
	assert.Contains(t, command(t, g, "lsinitramfs /boot/initrd.img-*"), "keywright-unlock")

	s.rekey(t, g, 2, partition, "/dev/vdc")
	assert.Subset(t, usual, shutDown(t, g))
	g = s.upAgain(t)
	assert.Equal(t, devices, command(t, g, "lsblk --raw --noheadings --output NAME,TYPE,MOUNTPOINTS"))
	assert.Subset(t, usual, shutDown(t, g))
}

// shutDown powers a guest off and returns what it said about it, without what
// differs from time to time.
func shutDown(t *testing.T, g *debian.Guest) []string {
	t.Helper()
	before := len(g.Log())
	powerOff(t, g)
	said := regexp.MustCompile(`(?m)^\[[ .0-9]+\] |dm-\d+`).ReplaceAllString(g.Log()[before:], "")
	return strings.Split(strings.TrimSpace(said), "\n")
}
