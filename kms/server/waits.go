package server

import (
	"context"
	"sync"
	"time"

	"keywright.dev/kms/api"
)

const (
	// holdFor is how long a machine that asks for orders waits for an answer: less
	// than a balancer waits, and than [writeTimeout].
	holdFor = 45 * time.Second
	// askAgain is when it asks again where there is no room to wait.
	askAgain = 2 * time.Minute
	// waitShare is the part of the connections that may be held by those who wait:
	// boots need the others.
	waitShare = 4
)

// waits holds the requests of machines that wait for orders.
type waits struct {
	room *lane

	mu     sync.Mutex
	woken  map[string]*wake // by machine
	closed chan struct{}
	once   sync.Once
}

// wake is closed once for all who wait for a machine.
type wake struct {
	c       chan struct{}
	waiting int
}

func newWaits(limits *Limits) *waits {
	return &waits{
		room: newLane("wait", limits.Connections/waitShare), woken: make(map[string]*wake), closed: make(chan struct{}),
	}
}

// close has everybody who waits asked to come again.
func (w *waits) close() { w.once.Do(func() { close(w.closed) }) }

// ordered wakes those who wait for a machine.
func (w *waits) ordered(machine string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if known := w.woken[machine]; known != nil {
		close(known.c)
		delete(w.woken, machine)
	}
}

// waiting tells whether anybody waits for a machine.
func (w *waits) waiting(machine string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.woken[machine] != nil
}

// enter registers one who waits; it is called before the store is asked, so that
// nothing is missed.
func (w *waits) enter(machine string) (woken <-chan struct{}, leave func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	known := w.woken[machine]
	if known == nil {
		known = &wake{c: make(chan struct{})}
		w.woken[machine] = known
	}
	known.waiting++
	return known.c, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if known.waiting--; known.waiting == 0 && w.woken[machine] == known {
			delete(w.woken, machine)
		}
	}
}

// orders answers when a machine has orders, or after a while.
func (g *guests) orders(ctx context.Context, c call, r *api.OrdersRequest) (api.OrdersResponse, error) {
	woken, leave := g.waits.enter(r.Machine)
	defer leave()
	ordered, err := g.server.Service.HasOrders(ctx, r.Machine, c.source)
	if err != nil || ordered {
		return g.told(ordered), err
	}
	if !g.waits.room.tryEnter() {
		again := g.told(false)
		again.Again = int(askAgain / time.Second)
		return again, nil
	}
	defer g.waits.room.leave()
	timer := time.NewTimer(holdFor)
	defer timer.Stop()
	select {
	case <-woken:
	case <-timer.C:
	case <-g.waits.closed:
	case <-ctx.Done():
		return api.OrdersResponse{}, ctx.Err()
	}
	ordered, err = g.server.Service.HasOrders(ctx, r.Machine, c.source)
	return g.told(ordered), err
}

// told is what every answer says.
func (g *guests) told(ordered bool) api.OrdersResponse {
	return api.OrdersResponse{Ordered: ordered, ServiceKeys: bytesOf(g.server.Service.Identities.Fingerprints())}
}
