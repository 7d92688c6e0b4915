package attest

import (
	"container/list"
	"crypto/sha256"
	"sync"
)

// cache keeps the logs seen last, by the SHA-256 of a log's bytes.
type cache struct {
	mu     sync.Mutex
	limit  int
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
	if c.recent.Len() > c.limit {
		oldest, _ := c.recent.Remove(c.recent.Back()).(*appraised)
		delete(c.byHash, oldest.hash)
	}
}
