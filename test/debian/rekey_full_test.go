//go:build vm && full

package debian_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestServerIsRekeyed has a Debian server rekeyed by its agent, in the sandbox of its
// unit, and then by a boot. After each it boots unattended.
func TestServerIsRekeyed(t *testing.T) {
	s := newSite(t)
	g := s.enrolled(t)
	s.rekey(t, g, 2, partition)
	require.NoError(t, s.service.OrderRekey(t.Context(), "web-17", "--at-boot"))
	restart := func() {
		powerOff(t, g)
		g = s.upAgain(t)
		whole(t, g)
	}

	restart()
	assert.Contains(t, g.Log(), "keywright: rekeyed /dev/vda3\n")
	s.requireRekeyed(t, g, 3, partition)

	restart()
	assert.NotContains(t, g.Log(), "rekeyed")
	s.requireRekeyed(t, g, 3, partition)
	powerOff(t, g)
}
