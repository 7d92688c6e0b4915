package kms

import "keywright.dev/kms/secret"

// LimitPending has fewer machines wait than a service lets wait.
func (s *Service) LimitPending(n int64) { s.maxPending = n }

// Held returns handles of the keys that are held, for tests that look whether
// they are wiped.
func (c *Challenges) Held() []secret.Bytes {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var held []secret.Bytes
	for _, k := range c.keys {
		held = append(held, k.key)
	}
	return held
}
