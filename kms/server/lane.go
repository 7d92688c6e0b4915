package server

import (
	"context"
	"time"

	"keywright.dev/kms/api"
)

// lane bounds how many requests of one kind are worked on at once. The others
// wait a little, in order.
type lane struct {
	name  string
	slots chan struct{}
}

func newLane(name string, slots int) *lane {
	return &lane{name, make(chan struct{}, slots)}
}

// enter waits for a slot and returns what gives it back.
func (l *lane) enter(ctx context.Context) (leave func(), err error) {
	if l.tryEnter() {
		return l.leave, nil
	}
	ctx, cancel := context.WithTimeout(ctx, laneTimeout)
	defer cancel()
	select {
	case l.slots <- struct{}{}:
		return l.leave, nil
	case <-ctx.Done():
		return nil, failAfter(api.CodeBusy, retryBusy)
	}
}

// tryEnter takes a slot where one is free.
func (l *lane) tryEnter() bool {
	select {
	case l.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

func (l *lane) leave() { <-l.slots }

const (
	// yieldFor bounds how long other work waits for boots, so that it comes to an
	// end in a storm of them as well.
	yieldFor = 100 * time.Millisecond
	// yieldEvery is how often that work looks whether it is its turn.
	yieldEvery = 2 * time.Millisecond
)

// yieldToBoots waits, but not for long, until no release is worked on.
func (g *guests) yieldToBoots(ctx context.Context) error {
	ticker, last := time.NewTicker(yieldEvery), time.NewTimer(yieldFor)
	defer ticker.Stop()
	defer last.Stop()
	for g.releases.inUse() > 0 {
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

func (l *lane) inUse() int { return len(l.slots) }
