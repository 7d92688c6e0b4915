package kms

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Leadership says who does what one of several servers does at a time.
type Leadership struct {
	Name string
	// Epoch grows with each leader.
	Epoch  uint64
	Holder string // empty: nobody
	// Renewals grow for as long as the holder lives.
	Renewals uint64
}

// Term is the time of one leader. Whatever carries it is written only while it lasts:
// the store compares the epoch in the same transaction.
type Term struct {
	Name  string
	Epoch uint64
}

// Candidate is a server that leads where nobody else does.
//
// No wall clock decides. A holder counts its term from before it renewed it, another
// candidate from when it saw that it was renewed, each by its own clock, which nobody
// sets: so that a term has ended for its holder before anybody takes it. A holder that
// was stopped, or whose clock stood still, may think otherwise: what it wants written
// carries its term, and the store refuses it.
type Candidate struct {
	Name   string
	Holder string // names this process among all
	Store  Transactor
	// Uptime is CLOCK_BOOTTIME.
	Uptime func() time.Duration
	// Lasts is how long a term lasts after it was renewed.
	Lasts time.Duration

	lock  sync.Mutex
	term  Term
	until time.Duration // the own term lasts
	seen  Leadership    // of another
	since time.Duration // it was seen so for the first time
}

// Stand renews the candidate's term, or takes office where nobody holds it, or the
// holder has not renewed it for as long as a term lasts. It is called several times
// within a term. It tells whether the candidate leads.
func (c *Candidate) Stand(ctx context.Context) (Term, bool, error) {
	c.lock.Lock()
	defer c.lock.Unlock()
	began := c.Uptime()
	var known, next Leadership
	err := c.Store.Transact(ctx, Key{Leader: c.Name}, func(state State) (Outcome, error) {
		known = Leadership{Name: c.Name}
		if state.Leader != nil {
			known = *state.Leader
		}
		if next = c.next(known, began); next == known {
			return Outcome{}, nil
		}
		return Outcome{Leader: &next}, nil
	})
	if err != nil {
		return c.term, c.holds(), fmt.Errorf("standing for leader of %s: %w", c.Name, err)
	}
	if next.Holder == c.Holder {
		c.term, c.until = Term{c.Name, next.Epoch}, began+c.Lasts
	} else if c.until = 0; known != c.seen {
		c.seen, c.since = known, c.Uptime()
	}
	return c.term, c.holds(), nil
}

// next is what becomes of the office.
func (c *Candidate) next(known Leadership, now time.Duration) Leadership {
	next := known
	switch {
	case known.Holder == c.Holder:
		next.Renewals++
	case known.Holder == "", known == c.seen && now-c.since >= c.Lasts:
		next.Epoch, next.Holder, next.Renewals = known.Epoch+1, c.Holder, 0
	}
	return next
}

func (c *Candidate) holds() bool { return c.Uptime() < c.until }

// Leads tells whether the candidate's term lasts still, by its own clock.
func (c *Candidate) Leads() bool {
	c.lock.Lock()
	defer c.lock.Unlock()
	return c.holds()
}

// Resign lets another candidate in at once.
func (c *Candidate) Resign(ctx context.Context) error {
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.until = 0; c.term.Epoch == 0 {
		return nil
	}
	err := c.Store.Transact(ctx, Key{Leader: c.Name}, func(state State) (Outcome, error) {
		if state.Leader == nil || state.Leader.Holder != c.Holder {
			return Outcome{}, nil
		}
		next := *state.Leader
		next.Holder = ""
		return Outcome{Leader: &next}, nil
	})
	if err != nil {
		return fmt.Errorf("resigning as leader of %s: %w", c.Name, err)
	}
	return nil
}
