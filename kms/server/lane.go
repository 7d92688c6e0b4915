package server

import (
	"context"

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
	select {
	case l.slots <- struct{}{}:
		return l.leave, nil
	default:
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

func (l *lane) leave() { <-l.slots }

func (l *lane) inUse() int { return len(l.slots) }
