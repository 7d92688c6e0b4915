//go:build integration && full

package load_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestRekeysOfAFleet has a fleet rekeyed again and again, and the service killed
// more often; the last time once more when all is over.
func TestRekeysOfAFleet(t *testing.T) {
	r := newRekeying(t, guests)
	for range 3 {
		r.round(40)
	}
	r.service.Kill()
	require.NoError(t, r.service.Start(t.Context()))
	r.check(r.head())
	assert.NotZero(t, r.fleet.Retries.Load(), "the kills hit nobody")
}
