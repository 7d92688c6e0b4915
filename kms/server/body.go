package server

import (
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
// grows, so that a slow sender holds what it has sent and no more.
type bodies struct {
	limits *Limits

	mu       sync.Mutex
	used     int64
	bySource map[netip.Prefix]int64
}

func newBodies(limits *Limits) *bodies {
	return &bodies{limits: limits, bySource: make(map[netip.Prefix]int64)}
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
}

func (b *bodies) open(address netip.Addr) *charge {
	return &charge{bodies: b, source: sourceOf(address), shared: b.limits.shared(address)}
}

// grow charges a body of size bytes.
func (c *charge) grow(size int) error {
	more := int64(size)*decodedShare - c.bytes
	b := c.bodies
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used+more > b.limits.BodyMemory || !c.shared && b.bySource[c.source]+more > b.limits.BodyMemory/sourceShare {
		return failAfter(api.CodeBusy, retryBusy)
	}
	b.used += more
	b.bySource[c.source] += more
	c.bytes += more
	return nil
}

// close gives the memory back.
func (c *charge) close() {
	b := c.bodies
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= c.bytes
	if b.bySource[c.source] -= c.bytes; b.bySource[c.source] <= 0 {
		delete(b.bySource, c.source)
	}
	c.bytes = 0
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
	_ = http.NewResponseController(w).SetReadDeadline(now.Add(c.bodies.limits.BodyTimeout))
	var body []byte
	for size := min(firstBody, limit+1); ; size = min(2*size, limit+1) {
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
			return nil, fail(api.CodeTimeout)
		case err != nil:
			return nil, fail(api.CodeMalformed)
		case len(body) > limit:
			return nil, fail(api.CodeTooLarge)
		}
	}
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
