package attest

import (
	"container/list"
	"crypto/sha256"
	"sync"

	"keywright.dev/kms/claims"
)

// MaxRemembered bounds what an appraiser remembers of all logs, in bytes. A
// log that somebody made long takes its place from others.
const MaxRemembered = 8 << 20

// cache keeps the logs seen last, by the SHA-256 of a log's bytes.
type cache struct {
	mu     sync.Mutex
	limit  int        // of logs
	bytes  int        // of those that are kept
	recent *list.List // of *appraised, the last used first
	byHash map[[sha256.Size]byte]*list.Element
}

func newCache(limit int) *cache {
	return &cache{limit: limit, recent: list.New(), byHash: make(map[[sha256.Size]byte]*list.Element)}
}

func (c *cache) get(hash [sha256.Size]byte) (*appraised, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	element, ok := c.byHash[hash]
	if !ok {
		return nil, false
	}
	c.recent.MoveToFront(element)
	found, ok := element.Value.(*appraised)
	return found, ok
}

func (c *cache) put(a *appraised) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.byHash[a.hash]; ok || c.limit <= 0 {
		return
	}
	c.byHash[a.hash] = c.recent.PushFront(a)
	c.bytes += a.size()
	for c.recent.Len() > c.limit || c.bytes > MaxRemembered {
		oldest, _ := c.recent.Remove(c.recent.Back()).(*appraised)
		delete(c.byHash, oldest.hash)
		c.bytes -= oldest.size()
	}
}

// size is about what the log takes in memory, in bytes: of each claim its text
// and what holds it.
func (a *appraised) size() int {
	const fixed, eachClaim = 1 << 10, 64
	size := fixed
	for _, set := range []claims.Set{a.measurement, a.platform} {
		size += len(set.Marshal()) + set.Len()*eachClaim
	}
	for _, c := range a.state {
		size += len(c.Value) + eachClaim
	}
	return size
}
