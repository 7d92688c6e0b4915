package kms

import (
	"context"

	"keywright.dev/kms/secret"
)

// ScanNextBoots is [Service.MachinesByNextBoot] over so many machines at once.
func (s *Service) ScanNextBoots(ctx context.Context, wanted func(Verdict) bool, after string, limit, scan int) ([]Machine, []NextBoot, string, error) {
	return s.scanNextBoots(ctx, MachineFilter{}, wanted, after, limit, scan)
}

// ReadPosition reads a place in a list and writes it again.
func ReadPosition(text string) (string, error) {
	p, err := parsePosition(text)
	return p.String(), err
}

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

// HeldKeys counts the keys that lie in memory, whether or not they may be used.
func (k *Keys) HeldKeys() int {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return len(k.leases)
}
