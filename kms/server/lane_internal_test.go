package server

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOtherWorkYieldsToBoots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &guests{releases: newLane("release", 2)}
		pause, booting := g.yielding(), false
		took := func(ctx context.Context) (time.Duration, error) {
			began := time.Now()
			busy, err := pause(ctx)
			assert.Equal(t, booting, busy)
			return time.Since(began), err
		}
		time.Sleep(time.Minute)
		waited, err := took(t.Context())
		require.NoError(t, err)
		assert.Zero(t, waited, "nobody boots")

		booting = true
		leave, err := g.releases.enter(t.Context())
		require.NoError(t, err)
		canceled, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = took(canceled)
		require.ErrorIs(t, err, context.Canceled)
		waited, err = took(t.Context())
		require.NoError(t, err)
		assert.Equal(t, yieldFor, waited, "not for ever")

		leave()
		time.Sleep(5 * time.Millisecond)
		waited, err = took(t.Context())
		require.NoError(t, err)
		assert.Equal(t, 20*time.Millisecond, waited, "machines booted just now: a fifth of the time is its own")
		time.Sleep(bootsEnd)
		booting = false
		waited, err = took(t.Context())
		require.NoError(t, err)
		assert.Zero(t, waited, "they do not any more")
	})
}
