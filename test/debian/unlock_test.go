//go:build vm

package debian_test

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/exchange"
)

// TestServerUnlocksItself has a stock Debian server (shim, GRUB, initramfs-tools)
// enrol itself, boot unattended, and be rekeyed by that boot and by its agent.
func TestServerUnlocksItself(t *testing.T) {
	s := newSite(t)
	g := s.bootByPassphrase(t)
	assert.Contains(t, s.enroll(t, g), "(from GRUB's entry \"Debian GNU/Linux\")")
	powerOff(t, g)

	// Nobody approved it yet: the prompt stands beside the client, and what the
	// passphrase opened can ask for no keys.
	g = s.bootByPassphrase(t)
	assert.Contains(t, g.Log(), "keywright KW-1207 refused")
	closed := exchange.Extend([32]byte{}, exchange.NoReleaseEvent())
	assert.Equal(t, hex.EncodeToString(closed[:]), strings.ToLower(strings.TrimSpace(command(t, g, "cat /sys/class/tpm/tpm0/pcr-sha256/15"))))
	powerOff(t, g)

	ek, err := s.machine.TPM.EK()
	require.NoError(t, err)
	_, err = s.service.Operate(t.Context(), "machine", "approve", "web-17", "--ek-hash", ek.MachineID())
	require.NoError(t, err)
	require.NoError(t, s.service.OrderRekey(t.Context(), "web-17"))
	g = boot(t, s.machine, s.service.Port())
	_, err = g.Expect(t.Context(), "keywright: opened")
	require.NoError(t, err)
	require.NoError(t, g.Login(t.Context()))
	assert.Empty(t, command(t, g, "systemctl --failed --no-legend"))
	assert.Contains(t, command(t, g, "cryptsetup status root"), "is active and is in use")

	s.requireRekeyed(t, g, 2, partition)
	s.rekey(t, g, 3, partition)

	// It announces its next boots by itself, from within the unit's sandbox.
	command(t, g, "systemctl is-active keywright-unlock-stage.timer keywright-unlock-stage.path && systemctl start keywright-unlock-stage.service")
	assert.NotContains(t, command(t, g, "journalctl -b --no-pager -u keywright-unlock-stage.service"), "W: keywright-unlock")
	assert.Contains(t, command(t, g, "keywright-unlock preflight"), "next boot: yes")
	// An update of shim is not taken for what started this boot.
	command(t, g, "(set -e; cp -r /boot/efi/EFI /root/; for f in BOOT/BOOTX64.EFI debian/shimx64.efi; do cat /root/EFI/debian/mmx64.efi >/boot/efi/EFI/$f; done)")
	_, err = g.Command(t.Context(), "keywright-unlock preflight")
	require.ErrorContains(t, err, "program 1, shim, is another one than in the base boot")
	command(t, g, "cp -r /root/EFI /boot/efi/")
	assert.Contains(t, command(t, g, "keywright-unlock preflight"), "next boot: yes")
	announced, err := s.service.Operate(t.Context(), "machine", "show", "web-17")
	require.NoError(t, err)
	assert.Regexp(t, `announced +\d{4}-`, announced)
	assert.Empty(t, command(t, g, "systemctl --failed --no-legend"))
	powerOff(t, g)
}
