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
// enrol itself and boot unattended.
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
	g = boot(t, s.machine, s.service.Port())
	_, err = g.Expect(t.Context(), "keywright: opened")
	require.NoError(t, err)
	require.NoError(t, g.Login(t.Context()))
	assert.Empty(t, command(t, g, "systemctl --failed --no-legend"))
	assert.Contains(t, command(t, g, "cryptsetup status root"), "is active and is in use")
	powerOff(t, g)
}
