package server

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"keywright.dev/rotate"
)

func TestWhatWasNotDoneIsTriedAgainAfterAWhile(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	rekey := rotate.Action{Kind: rotate.RekeyVolume}
	for after, waits := range map[time.Duration]bool{0: true, retryAfter - 1: true, retryAfter: false, -1: false} {
		l := later{rekey: now}
		l.forget(now.Add(after))
		assert.Equal(t, waits, len(l) == 1, after)
	}
}
