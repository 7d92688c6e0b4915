//go:build integration && full

package load_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// releases is how many the long storm asks for.
const releases = 10_000

// TestLongStorm boots a fleet again and again while the service is killed.
func TestLongStorm(t *testing.T) {
	r := newRig(t, fleetSize)
	r.fleet.Patience = patience
	r.enroll(r.kills(fleetSize/3, fleetSize/2))
	r.approve(nil)
	for done := 0; done < releases; done += fleetSize {
		r.boot(r.kills(fleetSize/5, fleetSize/2, fleetSize*4/5))
	}
	r.service.Kill()
	require.NoError(t, r.service.Start(t.Context()))
	r.check(r.head())
	assert.NotZero(t, r.fleet.Retries.Load(), "the kills hit nobody")
}
