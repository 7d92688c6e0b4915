package server

import (
	"context"
	"sync/atomic"
	"time"

	"keywright.dev/kms/api"
)

// lane bounds how many requests of one kind are worked on at once. The others
// wait a little, in order.
type lane struct {
	name  string
	slots chan struct{}
	left  atomic.Pointer[time.Time] // when a request was last done
}

func newLane(name string, slots int) *lane {
	return &lane{name: name, slots: make(chan struct{}, slots)}
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

func (l *lane) leave() {
	now := time.Now()
	l.left.Store(&now)
	<-l.slots
}

// quiet tells whether no request was worked on for a while.
func (l *lane) quiet(while time.Duration) bool {
	left := l.left.Load()
	return l.inUse() == 0 && (left == nil || time.Since(*left) >= while)
}

func (l *lane) inUse() int { return len(l.slots) }
