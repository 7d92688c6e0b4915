package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// Without a terminal, a line now and then says how far a rewrap is.
func TestRewrapLogsItsProgress(t *testing.T) {
	var out bytes.Buffer
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	p := &Program{Err: &out, Clock: func() time.Time { return now }}
	progress := p.progress(10_000)
	for done := 0; done <= 4_000; done += 100 {
		progress.done(done, int64(10_000-done))
		now = now.Add(time.Second)
	}
	progress.end()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	assert.Len(t, lines, 4, out.String())
	assert.Contains(t, lines[0], "done=1000 remaining=9000 per_second=100 left=1m30s")
}

func TestRewrapRate(t *testing.T) {
	for perSecond, page := range map[int]int{0: rewrapPage, 1: 1, 50: 50, 100_000: rewrapPage} {
		assert.Equal(t, page, pageOfRate(perSecond))
		assert.True(t, limiterOf(perSecond).AllowN(time.Now(), page), "the first page waits for nothing")
	}
	assert.False(t, limiterOf(50).AllowN(time.Now(), 51))
}
