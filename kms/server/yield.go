package server

import (
	"context"
	"time"

	"keywright.dev/kms"
)

const (
	// yieldFor bounds how long other work waits for boots, so that it comes to an
	// end in a storm of them as well.
	yieldFor = 100 * time.Millisecond
	// yieldEvery is how often that work looks whether it is its turn.
	yieldEvery = 2 * time.Millisecond
	// othersShare is the part of the time that other work takes while machines boot:
	// one in so many.
	othersShare = 5
	// bootsEnd is how long after a release machines are no longer said to boot.
	bootsEnd = time.Second
)

// yielding returns what work that is no boot calls before each of its pieces. While
// machines boot it waits, but never for long, until no release is worked on, and as
// many times as long as the piece before took: whatever the piece holds up, it does
// so for few boots.
func (g *guests) yielding() kms.Pause {
	began := time.Now()
	return func(ctx context.Context) (busy bool, err error) {
		worked := time.Since(began)
		busy = !g.releases.quiet(bootsEnd)
		err = g.yield(ctx, min((othersShare-1)*worked, yieldFor))
		began = time.Now()
		return busy, err
	}
}

func (g *guests) yield(ctx context.Context, atLeast time.Duration) error {
	ticker, last := time.NewTicker(yieldEvery), time.NewTimer(yieldFor)
	defer ticker.Stop()
	defer last.Stop()
	for began := time.Now(); !g.releases.quiet(bootsEnd); {
		if time.Since(began) >= atLeast && g.releases.inUse() == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-last.C:
			return nil
		case <-ticker.C:
		}
	}
	return nil
}
