package rotate

import (
	"math/bits"
	"time"

	"github.com/cespare/xxhash/v2"
)

// due returns when the work on an object begins that becomes older than age at the
// deadline: before it, at the object's own moment within the jitter. It is false where
// it may become as old as it likes.
func (s *Settings) due(object string, since time.Time, age Age) (due, deadline time.Time, ok bool) {
	if age == Never {
		return time.Time{}, time.Time{}, false
	}
	deadline = since.Add(time.Duration(age))
	return deadline.Add(-share(object, s.Jitter)), deadline, true
}

// share spreads objects evenly over a span: an object always has the same moment.
func share(object string, span time.Duration) time.Duration {
	part, _ := bits.Mul64(xxhash.Sum64String(object), uint64(span))
	return time.Duration(part)
}
