package kms

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"keywright.dev/kms/audit"
)

const (
	// machineEvery and machineBurst limit what one authentic machine may ask: a
	// boot asks once, a client that keeps trying every 30 seconds.
	machineEvery = 6 * time.Second
	machineBurst = 20
	// keyEvery and keyBurst limit one machine's calls of the key API.
	keyEvery = time.Second
	keyBurst = 30
	// maxLimited bounds the machines whose rate is remembered.
	maxLimited = 100_000
	// maxAggregates bounds the kinds of refusals that are counted apart.
	maxAggregates = 1024
)

// machineLimits limits the rate of each machine behind its signature, so that a
// stolen AK can fill neither log nor store. Who makes keys of his own is as many
// machines as he likes: what those leave behind is bounded by how many may wait
// for approval, and by what is kept of each.
type machineLimits struct {
	clock    func() time.Time
	every    time.Duration
	burst    int
	mu       sync.Mutex
	limiters map[string]*rate.Limiter
}

func newMachineLimits(clock func() time.Time, every time.Duration, burst int) *machineLimits {
	return &machineLimits{clock: clock, every: every, burst: burst, limiters: make(map[string]*rate.Limiter)}
}

func (l *machineLimits) allow(machine string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	limiter, ok := l.limiters[machine]
	if !ok {
		l.makeRoom()
		limiter = rate.NewLimiter(rate.Every(l.every), l.burst)
		l.limiters[machine] = limiter
	}
	return limiter.AllowN(l.clock(), 1)
}

// makeRoom forgets the machines that used nothing of their burst lately.
func (l *machineLimits) makeRoom() {
	if len(l.limiters) < maxLimited {
		return
	}
	now := l.clock()
	for machine, limiter := range l.limiters {
		if limiter.TokensAt(now) >= float64(l.burst) {
			delete(l.limiters, machine)
		}
	}
}

// unproven counts a refusal that came before fresh evidence of a machine that is
// known: anybody can cause those, so the log gets them as aggregates. Other
// errors pass.
func (s *Service) unproven(err error, source netip.Addr) error {
	var refusal *Refusal
	if errors.As(err, &refusal) {
		s.aggregates.add(refusal.Reason, source)
	}
	return err
}

// aggregates counts refusals by reason and source network.
type aggregates struct {
	mu     sync.Mutex
	counts map[aggregate]int64
}

type aggregate struct {
	reason Reason
	source netip.Prefix
}

func newAggregates() *aggregates {
	return &aggregates{counts: make(map[aggregate]int64)}
}

// add counts by address for IPv4 and by /64 for IPv6; sources beyond the bound
// are counted together.
func (a *aggregates) add(reason Reason, source netip.Addr) {
	bits := 32
	if source = source.Unmap(); source.Is6() {
		bits = 64
	}
	prefix, _ := source.WithZone("").Prefix(bits) // the zero prefix for no address
	a.mu.Lock()
	defer a.mu.Unlock()
	key := aggregate{reason, prefix}
	if _, ok := a.counts[key]; !ok && len(a.counts) >= maxAggregates {
		key.source = netip.Prefix{}
	}
	a.counts[key]++
}

func (a *aggregates) take() map[aggregate]int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	counts := a.counts
	a.counts = make(map[aggregate]int64)
	return counts
}

func (a *aggregates) giveBack(counts map[aggregate]int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for key, n := range counts {
		a.counts[key] += n
	}
}

// FlushAggregates writes the counted refusals into the audit log. What cannot
// be written is counted again.
func (s *Service) FlushAggregates(ctx context.Context) error {
	counts := s.aggregates.take()
	if len(counts) == 0 {
		return nil
	}
	err := s.Store.Transact(ctx, Key{}, func(State) (Outcome, error) {
		return s.aggregateEntries(counts)
	})
	if err != nil {
		s.aggregates.giveBack(counts)
		return fmt.Errorf("recording refusals: %w", err)
	}
	return nil
}

func (s *Service) aggregateEntries(counts map[aggregate]int64) (Outcome, error) {
	var out Outcome
	for key, n := range counts {
		source := "unknown"
		if key.source.IsValid() {
			source = key.source.String()
		}
		e, err := s.aggregateEntry(key.reason, source, n)
		if err != nil {
			return Outcome{}, err
		}
		out.Entries = append(out.Entries, e)
	}
	slices.SortFunc(out.Entries, func(a, b LogEntry) int {
		return strings.Compare(string(a.Signed.Entry), string(b.Signed.Entry))
	})
	return out, nil
}

func (s *Service) aggregateEntry(reason Reason, source string, n int64) (LogEntry, error) {
	id, err := audit.NewID(s.Random)
	if err != nil {
		return LogEntry{}, err
	}
	now := s.Clock()
	signed, err := s.Log.Sign(audit.Entry{
		ID: id, Time: now, Actor: audit.Actor{Kind: audit.ActorSource, ID: source}, Action: ActionUnproven,
		Outcome: audit.Refused, Code: string(reason), Count: n,
	})
	if err != nil {
		return LogEntry{}, err
	}
	return LogEntry{Signed: signed, Action: ActionUnproven, Time: now}, nil
}
