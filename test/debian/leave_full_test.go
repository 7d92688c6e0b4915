//go:build vm && full

package debian_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// TestServerLeaves has an enrolled server leave and purge the package: nothing of
// the client is on it or in its next boot, and the passphrase opens.
func TestServerLeaves(t *testing.T) {
	s := newSite(t)
	g := s.bootByPassphrase(t)
	s.enroll(t, g)
	command(t, g, typed+"keywright-unlock leave --passphrase-fd 0")
	assert.Empty(t, command(t, g, "find /etc/initramfs-tools /etc/keywright -name '*keywright*' -type f -o -name unlock.toml"))
	assert.NotContains(t, command(t, g, "lsinitramfs /boot/initrd.img-*"), "keywright")
	command(t, g, "dpkg -P keywright-unlock")
	assert.Empty(t, command(t, g, "find / /boot -xdev -name '*keywright*' -not -path '/root/*'"))
	powerOff(t, g)

	g = s.bootByPassphrase(t)
	assert.NotContains(t, g.Log(), "keywright")
	assert.Empty(t, command(t, g, "systemctl --failed --no-legend"))
	powerOff(t, g)
}
