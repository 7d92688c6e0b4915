package server

import (
	"container/list"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// connections bounds open connections. When there are too many, the one that
// has waited longest without sending a request makes room, and where none does,
// the one whose body has been arriving longest: so callers who only connect, or
// send a byte now and then, can't keep others out. Either has had its time:
// whoever is let in is not pushed out by those who come after.
type connections struct {
	limits *Limits
	clock  func() time.Time
	// turnedAway counts what was closed for the limits' sake.
	turnedAway func()

	mu       sync.Mutex
	open     int
	bySource map[netip.Prefix]int
	waiting  *list.List // of *connection without a request; the oldest in front
	arriving *list.List // of *connection whose body arrives; the oldest in front
}

// connection is an accepted one.
type connection struct {
	net.Conn
	all    *connections
	source netip.Prefix
	// place is where it stands in list: among those that wait, among those whose
	// body arrives, or nowhere while a request is served, and once it is counted
	// no more.
	list  *list.List
	place *list.Element
	since time.Time // when it took its place
	// giveWay ends the body that arrives.
	giveWay func()
	closed  bool // counted no more
}

func newConnections(limits *Limits, clock func() time.Time, turnedAway func()) *connections {
	return &connections{
		limits: limits, clock: clock, turnedAway: turnedAway,
		bySource: make(map[netip.Prefix]int), waiting: list.New(), arriving: list.New(),
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
			evicted.giveUp()
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
	a.stand(c, a.waiting)
	a.open++
	a.bySource[source]++
	return c, evicted
}

// longest returns the connection that has had its place longest, if it had its
// time.
func (a *connections) longest() *connection {
	for _, l := range []*list.List{a.waiting, a.arriving} {
		if front := l.Front(); front != nil {
			c := front.Value.(*connection) //nolint:errcheck,forcetypeassert // nothing else is put in
			if a.clock().Sub(c.since) >= requestGrace {
				return c
			}
		}
	}
	return nil
}

// stand gives the connection a place at the end of a list; of none with nil.
func (a *connections) stand(c *connection, l *list.List) {
	if c.place != nil {
		c.list.Remove(c.place)
	}
	if c.list, c.place = l, nil; l != nil {
		c.since, c.place = a.clock(), l.PushBack(c)
	}
}

// forget takes a connection out of all counts, once.
func (a *connections) forget(c *connection) {
	if c.closed {
		return
	}
	c.closed = true
	a.stand(c, nil)
	a.open--
	if a.bySource[c.source]--; a.bySource[c.source] == 0 {
		delete(a.bySource, c.source)
	}
}

// giveUp ends a connection that made room. One whose body arrives gets an
// answer, and is closed behind it.
func (c *connection) giveUp() {
	if c.giveWay != nil {
		c.giveWay()
		return
	}
	_ = c.Close() // nobody hears of it
}

// arrive puts the connection among those whose body arrives; giveWay must end
// the request. No connection is one that is not bounded.
func (c *connection) arrive(giveWay func()) {
	if c == nil {
		return
	}
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	if !c.closed {
		c.giveWay = giveWay
		c.all.stand(c, c.all.arriving)
	}
}

// arrived tells that the body is here: from now on the request is served.
func (c *connection) arrived() {
	if c == nil {
		return
	}
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	if !c.closed {
		c.giveWay = nil
		c.all.stand(c, nil)
	}
}

// Close closes the connection and makes room.
func (c *connection) Close() error {
	c.all.mu.Lock()
	c.all.forget(c)
	c.all.mu.Unlock()
	return c.Conn.Close()
}

// connectionOf returns the connection that was accepted; nil for another.
func connectionOf(conn net.Conn) *connection {
	if secured, ok := conn.(*tls.Conn); ok {
		conn = secured.NetConn()
	}
	c, _ := conn.(*connection)
	return c
}

type connectionKey struct{}

// withConnection is for [http.Server.ConnContext].
func withConnection(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, connectionOf(conn))
}

// connectionFrom returns the connection of a request; nil where it has none.
func connectionFrom(ctx context.Context) *connection {
	c, _ := ctx.Value(connectionKey{}).(*connection)
	return c
}

// track is for [http.Server.ConnState].
func (a *connections) track(conn net.Conn, state http.ConnState) {
	c := connectionOf(conn)
	if c == nil {
		return
	}
	if !a.place(c, state) && state == http.StateIdle {
		// It made room and was served all the same: that was its last request.
		_ = c.Close() // as in giveUp
	}
}

// place tells whether the connection is counted.
func (a *connections) place(c *connection, state http.ConnState) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case c.closed:
		return false
	case state == http.StateActive:
		a.stand(c, nil)
	case state == http.StateIdle && c.place == nil:
		a.stand(c, a.waiting)
	}
	return true
}

func (a *connections) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.open
}
