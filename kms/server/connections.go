package server

import (
	"container/list"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// connections bounds open connections. When there are too many, the one that
// has waited longest without sending a request makes room, so that callers who
// only connect can't keep others out. It has had time to send one: whoever is
// let in is not pushed out by those who come after.
type connections struct {
	limits *Limits
	clock  func() time.Time
	// turnedAway counts what was closed for the limits' sake.
	turnedAway func()

	mu       sync.Mutex
	open     int
	bySource map[netip.Prefix]int
	waiting  *list.List // of *connection; the oldest in front
}

// connection is an accepted one.
type connection struct {
	net.Conn
	all     *connections
	source  netip.Prefix
	waiting *list.Element // nil while a request is served, and once closed
	since   time.Time     // when it began to wait
	closed  bool
}

func newConnections(limits *Limits, clock func() time.Time, turnedAway func()) *connections {
	return &connections{
		limits: limits, clock: clock, turnedAway: turnedAway,
		bySource: make(map[netip.Prefix]int), waiting: list.New(),
	}
}

// limitedListener accepts what the limits admit.
type limitedListener struct {
	net.Listener
	all *connections
}

// Accept returns the next connection that is admitted.
func (l limitedListener) Accept() (net.Conn, error) {
	for {
		accepted, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c, evicted := l.all.admit(accepted)
		if evicted != nil {
			_ = evicted.Close() // it is given up
		}
		if c != nil {
			return c, nil
		}
		_ = accepted.Close() // as above
	}
}

// admit returns nil for a connection that is one too many, and the one that has
// to go for it.
func (a *connections) admit(accepted net.Conn) (admitted, evicted *connection) {
	address := addressOf(accepted.RemoteAddr().String())
	source := sourceOf(address)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.bySource[source] >= a.limits.PerSource && !a.limits.shared(address) {
		a.turnedAway()
		return nil, nil
	}
	if a.open >= a.limits.Connections {
		a.turnedAway()
		if evicted = a.longest(); evicted == nil {
			return nil, nil
		}
		a.forget(evicted)
	}
	c := &connection{Conn: accepted, all: a, source: source}
	a.wait(c)
	a.open++
	a.bySource[source]++
	return c, evicted
}

// longest returns the connection that has waited longest, if it had its time.
func (a *connections) longest() *connection {
	front := a.waiting.Front()
	if front == nil {
		return nil
	}
	c := front.Value.(*connection) //nolint:errcheck,forcetypeassert // nothing else is put in
	if a.clock().Sub(c.since) < requestGrace {
		return nil
	}
	return c
}

func (a *connections) wait(c *connection) {
	c.since, c.waiting = a.clock(), a.waiting.PushBack(c)
}

// forget takes a connection out of all counts, once.
func (a *connections) forget(c *connection) {
	if c.closed {
		return
	}
	c.closed = true
	a.settle(c)
	a.open--
	if a.bySource[c.source]--; a.bySource[c.source] == 0 {
		delete(a.bySource, c.source)
	}
}

func (a *connections) settle(c *connection) {
	if c.waiting != nil {
		a.waiting.Remove(c.waiting)
		c.waiting = nil
	}
}

// Close closes the connection and makes room.
func (c *connection) Close() error {
	c.all.mu.Lock()
	c.all.forget(c)
	c.all.mu.Unlock()
	return c.Conn.Close()
}

// track is for [http.Server.ConnState].
func (a *connections) track(conn net.Conn, state http.ConnState) {
	if secured, ok := conn.(*tls.Conn); ok {
		conn = secured.NetConn()
	}
	c, ok := conn.(*connection)
	if !ok {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case c.closed:
	case state == http.StateActive:
		a.settle(c)
	case state == http.StateIdle && c.waiting == nil:
		a.wait(c)
	}
}

func (a *connections) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.open
}
