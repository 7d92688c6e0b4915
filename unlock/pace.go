package unlock

import (
	"time"

	"keywright.dev/kms/api"
)

// How long a boot waits between tries. Each failure doubles the wait of its
// kind; half of it is random, so that a fleet that lost its power together does
// not come back in step.
const (
	firstWait    = time.Second     // after silence, an error or a limit
	firstRefusal = 5 * time.Second // after a refusal: an operator may act on it
	longestWait  = 30 * time.Second
)

// pace spaces tries out.
type pace struct {
	silent, refused, longest time.Duration
	random                   func() float64 // in [0, 1)
}

func newPace(random func() float64) *pace {
	return &pace{silent: firstWait, refused: firstRefusal, longest: longestWait, random: random}
}

// next returns how long to wait after a failure.
func (p *pace) next(f *Failure) time.Duration {
	kind := &p.silent
	switch {
	case f.Code == api.CodeChallenge:
		// It expired on the way or was redeemed by a request whose answer was
		// lost: a fresh one is all it takes, but not in a tight loop.
	case f.Refused:
		kind = &p.refused
	}
	wait := *kind
	*kind = min(2*wait, p.longest)
	wait = wait/2 + time.Duration(p.random()*float64(wait/2))
	return min(max(wait, f.RetryAfter), p.longest)
}
