package server

import (
	"container/list"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"time"

	"keywright.dev/kms/api"
)

const (
	// firstBody is what a body gets before it has shown its size: what it
	// announces costs its sender nothing.
	firstBody = 16 << 10
	// decodedShare is what a body takes in memory, as a multiple of its size:
	// itself and what is decoded from it.
	decodedShare = 2
	// sourceShare is the part of the memory that one source can hold.
	sourceShare = 4
)

// bodies hands out the memory that request bodies take. A body is charged as it
// grows, so that a slow sender holds what it has sent and no more. When there is
// no more, the body that has been arriving longest makes room: honest ones
// arrive at once.
type bodies struct {
	limits *Limits

	mu       sync.Mutex
	used     int64
	bySource map[netip.Prefix]int64
	arriving *list.List // of *charge; the oldest in front
}

func newBodies(limits *Limits) *bodies {
	return &bodies{limits: limits, bySource: make(map[netip.Prefix]int64), arriving: list.New()}
}

func (b *bodies) inUse() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// charge is the memory that one body holds.
type charge struct {
	bodies *bodies
	source netip.Prefix
	shared bool
	bytes  int64
	// place is where it stands among those that arrive; nil once it is complete
	// or gave way.
	place *list.Element
	// stop ends the reading of one that has to give way.
	stop func()
	gone bool
}

func (b *bodies) open(address netip.Addr) *charge {
	return &charge{bodies: b, source: sourceOf(address), shared: b.limits.shared(address)}
}

// grow charges a body of size bytes.
func (c *charge) grow(size int) error {
	b := c.bodies
	b.mu.Lock()
	defer b.mu.Unlock()
	more := int64(size)*decodedShare - c.bytes
	if c.gone || !c.shared && b.bySource[c.source]+more > b.limits.BodyMemory/sourceShare {
		return failAfter(api.CodeBusy, retryBusy)
	}
	for b.used+more > b.limits.BodyMemory {
		if !b.makeRoom(c) {
			return failAfter(api.CodeBusy, retryBusy)
		}
	}
	b.add(c, more)
	return nil
}

// makeRoom ends the body that has been arriving longest, other than the one
// that asks. What it held is free once its reader has noticed, which is at once.
func (b *bodies) makeRoom(asking *charge) bool {
	front := b.arriving.Front()
	if front == nil || front.Value == asking {
		return false
	}
	b.end(front.Value.(*charge)) //nolint:errcheck,forcetypeassert // nothing else is put in
	return true
}

// end ends a body that arrives.
func (b *bodies) end(c *charge) {
	c.gone = true
	b.settle(c)
	b.add(c, -c.bytes)
	c.stop()
}

func (b *bodies) add(c *charge, bytes int64) {
	b.used += bytes
	c.bytes += bytes
	if b.bySource[c.source] += bytes; b.bySource[c.source] == 0 {
		delete(b.bySource, c.source)
	}
}

func (b *bodies) settle(c *charge) {
	if c.place != nil {
		b.arriving.Remove(c.place)
		c.place = nil
	}
}

// arrive puts the body among those that arrive; stop must make its reader fail.
func (c *charge) arrive(stop func()) {
	c.bodies.mu.Lock()
	defer c.bodies.mu.Unlock()
	c.stop, c.place = stop, c.bodies.arriving.PushBack(c)
}

// giveWay ends the body unless it is complete.
func (c *charge) giveWay() {
	c.bodies.mu.Lock()
	defer c.bodies.mu.Unlock()
	if c.place != nil {
		c.bodies.end(c)
	}
}

// complete tells that all of it is here: it does not give way any more.
func (c *charge) complete() {
	c.bodies.mu.Lock()
	defer c.bodies.mu.Unlock()
	c.bodies.settle(c)
}

// close gives the memory back.
func (c *charge) close() {
	c.bodies.mu.Lock()
	defer c.bodies.mu.Unlock()
	c.bodies.settle(c)
	c.bodies.add(c, -c.bytes)
}

// read reads the body of a request, at most limit bytes.
func (c *charge) read(w http.ResponseWriter, r *http.Request, limit int, now time.Time) ([]byte, error) {
	if err := checkMedia(r); err != nil {
		return nil, err
	}
	if r.ContentLength > int64(limit) {
		return nil, fail(api.CodeTooLarge)
	}
	// An error means that the connection has no deadline; the server's own holds.
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(now.Add(c.bodies.limits.BodyTimeout))
	c.arrive(func() { _ = control.SetReadDeadline(now) })
	defer c.complete()
	connection := connectionFrom(r.Context())
	connection.arrive(c.giveWay)
	defer connection.arrived()
	var body []byte
	most := limit + 1 // one more than is allowed, to see what is too long
	if r.ContentLength >= 0 {
		most = int(r.ContentLength) + 1
	}
	for size := min(firstBody, most); ; size = min(2*size, most) {
		if err := c.grow(size); err != nil {
			return nil, err
		}
		body = append(make([]byte, 0, size), body...)
		n, err := io.ReadFull(r.Body, body[len(body):size])
		body = body[:len(body)+n]
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return body, cutOff(r, len(body))
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, c.late()
		case err != nil:
			return nil, fail(api.CodeMalformed)
		case len(body) > limit:
			return nil, fail(api.CodeTooLarge)
		}
	}
}

// late is the answer to a body that did not arrive in time, or gave way.
func (c *charge) late() error {
	c.bodies.mu.Lock()
	defer c.bodies.mu.Unlock()
	if c.gone {
		return failAfter(api.CodeBusy, retryBusy)
	}
	return fail(api.CodeTimeout)
}

// cutOff refuses a body that ended before its announced length.
func cutOff(r *http.Request, size int) error {
	if r.ContentLength >= 0 && int64(size) != r.ContentLength {
		return fail(api.CodeMalformed)
	}
	return nil
}

// checkMedia accepts plain JSON and nothing that must be unpacked first.
func checkMedia(r *http.Request) error {
	media, parameters, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	charset, other := parameters["charset"], len(parameters)
	if charset == "utf-8" || charset == "UTF-8" {
		other--
	}
	if err != nil || media != "application/json" || other != 0 || len(r.Header.Values("Content-Encoding")) > 0 {
		return fail(api.CodeMediaType)
	}
	return nil
}
