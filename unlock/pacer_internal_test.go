package unlock

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/unlock/luks"
)

// steppedClock goes on by what is slept.
type steppedClock struct{ now time.Time }

func (c *steppedClock) Now() time.Time { return c.now }

func (c *steppedClock) Sleep(_ context.Context, d time.Duration) error {
	c.now = c.now.Add(d)
	return nil
}

func TestPacer(t *testing.T) {
	clock := &steppedClock{now: time.Unix(1000, 0)}
	p := pacer{rate: 10, clock: clock}
	said := func(done, rate uint64, spent time.Duration) bool {
		return p.isAhead(luks.Progress{Done: done, Rate: rate, Spent: spent})
	}
	assert.False(t, said(1100, 100, time.Second), "1000 bytes were done before: 100 are the worth of ten seconds")
	assert.True(t, said(1300, 100, 3*time.Second))
	require.NoError(t, p.wait(t.Context()))
	assert.Equal(t, 29*time.Second, clock.now.Sub(time.Unix(1000, 0)))
	assert.False(t, said(1310, 100, time.Second), "another run goes on with what the first began")
	assert.True(t, said(1500, 100, time.Second))
	assert.False(t, (&pacer{}).isAhead(luks.Progress{Done: 1 << 60}), "without a rate there is no clock")
	slow := pacer{rate: 1 << 40, clock: clock}
	assert.False(t, slow.isAhead(luks.Progress{Done: 5, Rate: 5, Spent: time.Second}))
	require.NoError(t, slow.wait(t.Context()), "one that is late does not wait")
}
