package unlock

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"keywright.dev/kms/exchange"
	"keywright.dev/unlock/luks"
)

// turnstile is a clock on which a sleep ends when somebody lets it.
type turnstile struct {
	asked chan time.Duration
	open  chan struct{}
}

func (*turnstile) Now() time.Time { return time.Time{} }

func (c *turnstile) Sleep(ctx context.Context, d time.Duration) error {
	select {
	case c.asked <- d:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-c.open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Of what was noted since the last report, the latest is reported; nothing twice, and
// nothing after the end.
func TestProgressIsReportedNowAndThen(t *testing.T) {
	clock := &turnstile{make(chan time.Duration), make(chan struct{})}
	reported := make(chan uint64, 9)
	w := &progressWatch{clock: clock, report: func(_ context.Context, p luks.Progress, about exchange.VolumeReport) {
		assert.Equal(t, "v", about.ID)
		reported <- p.Done
	}}
	w.end() // of what never began
	w.begin(t.Context(), exchange.VolumeReport{ID: "v"})
	for _, notes := range [][]uint64{{1, 2, 3}, nil, {4}} {
		assert.Equal(t, progressEvery, <-clock.asked)
		for _, done := range notes {
			w.note(luks.Progress{Done: done})
		}
		clock.open <- struct{}{}
	}
	<-clock.asked
	w.note(luks.Progress{Done: 5})
	w.end()
	close(reported)
	var all []uint64
	for done := range reported {
		all = append(all, done)
	}
	assert.Equal(t, []uint64{3, 4}, all)
}
