//go:build vm && full

package debian_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/test/debian"
)

const (
	repinUnit   = "keywright-unlock-repin.service"
	guestConfig = "/etc/keywright/unlock.toml"
)

// TestServerTakesOverServiceKeys has the service's identity key replaced while a server
// runs: its agent hears of it, a unit has initramfs-tools pin it, and the server boots
// unattended, with both keys and then with the new one alone.
func TestServerTakesOverServiceKeys(t *testing.T) {
	s := newSite(t)
	g := s.enrolled(t)
	identity := func(args ...string) error {
		_, err := s.service.Operate(t.Context(), append([]string{"server", "identity"}, args...)...)
		return err
	}

	require.NoError(t, identity("rotate"))
	require.Error(t, identity("retire", s.service.Key), "no boot has shown that it knows the other one")
	g = s.repinned(t, g, 2)
	require.NoError(t, identity("retire", s.service.Key))
	require.Error(t, identity("census"), "the retired one is trusted still")
	g = s.repinned(t, g, 1)
	assert.NotContains(t, command(t, g, "cat "+guestConfig), s.service.Key)
	require.NoError(t, identity("census"), "the rotation is finished")
	powerOff(t, g)
}

// repinned waits until the server pins so many keys, in its configuration and in every
// initramfs, and restarts it.
func (s *site) repinned(t *testing.T, g *debian.Guest, keys int) *debian.Guest {
	t.Helper()
	command(t, g, fmt.Sprintf(`until [ "$(grep -o sha256: %s | wc -l)" = %d ] && ! [ -e /etc/keywright/repinning ]; do sleep 1; done`, guestConfig, keys))
	said := command(t, g, "journalctl -b --no-pager -u "+repinUnit)
	assert.Contains(t, said, "pins other service keys")
	assert.NotContains(t, said, "W: keywright-unlock")
	command(t, g, `(set -e; for i in /boot/initrd.img-*; do rm -rf /root/initrd; unmkinitramfs $i /root/initrd; cmp "$(find /root/initrd -path '*`+guestConfig+`')" `+guestConfig+`; done)`)
	assert.Empty(t, command(t, g, "systemctl --failed --no-legend"))
	powerOff(t, g)
	g = s.upAgain(t)
	whole(t, g)
	return g
}
