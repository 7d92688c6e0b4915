package server

import (
	"container/list"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// sourceRates limits requests by source. It remembers the sources seen last;
// one that was forgotten starts anew, so that no flood of addresses can make it
// grow.
type sourceRates struct {
	limits *Limits

	mu      sync.Mutex
	buckets map[netip.Prefix]*list.Element
	recent  *list.List // of *bucket, the last seen in front
}

type bucket struct {
	source netip.Prefix
	*rate.Limiter
}

func newSourceRates(limits *Limits) *sourceRates {
	return &sourceRates{limits: limits, buckets: make(map[netip.Prefix]*list.Element), recent: list.New()}
}

// admit takes one request of a source. Where it is one too many, it returns
// after how long the next one is due.
func (s *sourceRates) admit(address netip.Addr, now time.Time) (retry time.Duration, ok bool) {
	if s.limits.shared(address) {
		return 0, true
	}
	reservation := s.bucket(sourceOf(address)).ReserveN(now, 1)
	delay := reservation.DelayFrom(now)
	if delay > 0 {
		reservation.CancelAt(now)
	}
	return delay, delay <= 0
}

func (s *sourceRates) bucket(source netip.Prefix) *bucket {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.buckets[source]; ok {
		s.recent.MoveToFront(e)
		return e.Value.(*bucket) //nolint:errcheck,forcetypeassert // nothing else is put in
	}
	b := &bucket{source, rate.NewLimiter(rate.Limit(s.limits.Rate), s.limits.Burst)}
	s.buckets[source] = s.recent.PushFront(b)
	if s.recent.Len() > s.limits.Sources {
		oldest := s.recent.Remove(s.recent.Back()).(*bucket) //nolint:errcheck,forcetypeassert // as above
		delete(s.buckets, oldest.source)
	}
	return b
}
