//go:build vm

package debian_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/test/debian"
)

// rekeyPatience is how long a rekey may take on a busy host.
const rekeyPatience = 5 * time.Minute

// partition is the encrypted one.
const partition = "/dev/vda3"

// agent is the unit of the guest's agent.
const agent = "keywright-unlock-agent.service"

// rekey orders a rekey of the server's volumes, which are on these devices.
// Its agent carries it out in the sandbox of its unit.
func (s *site) rekey(t *testing.T, g *debian.Guest, version uint32, devices ...string) {
	t.Helper()
	command(t, g, "systemctl is-active "+agent)
	require.NoError(t, s.service.OrderRekey(t.Context(), "web-17"))
	s.requireRekeyed(t, g, version, devices...)
	for _, device := range devices {
		command(t, g, fmt.Sprintf("until journalctl -b -u %s | grep '%s is rekeyed: version %d opens it'; do sleep 1; done", agent, device, version))
	}
	assert.NotContains(t, command(t, g, "journalctl -b --no-pager -u "+agent), "KW-")
	assert.Empty(t, command(t, g, "journalctl -b --no-pager -q -p warning -u "+agent))
	assert.Empty(t, command(t, g, "find /run/keywright -name 'header-*'"), "no copy of a header is left")
	command(t, g, "systemctl is-active "+agent)
}

// requireRekeyed waits until a version of the secrets of the server's volumes is the
// current one, and holds that its keyslot on each device is the only one that boots open.
func (s *site) requireRekeyed(t *testing.T, g *debian.Guest, version uint32, devices ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), rekeyPatience)
	defer cancel()
	err := s.service.AwaitRekey(ctx, "web-17", version)
	if err != nil {
		t.Log(command(t, g, "journalctl -b --no-pager -u "+agent))
	}
	require.NoError(t, err)
	for _, device := range devices {
		var header struct {
			Keyslots map[string]any `json:"keyslots"`
			Tokens   map[string]any `json:"tokens"`
		}
		dump := command(t, g, "cryptsetup luksDump --dump-json-metadata "+device)
		require.NoError(t, json.Unmarshal([]byte(dump), &header), dump)
		assert.Len(t, header.Keyslots, 3, "of the passphrase, of boots, of the recovery key")
		assert.Len(t, header.Tokens, 2)
		command(t, g, typed+"cryptsetup open --test-passphrase --key-file - "+device)
	}
}
