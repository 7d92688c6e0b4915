package rotate

import (
	"math"
	"time"
)

// Cost is what steps take.
type Cost struct {
	RootCalls int64         // calls of roots of trust
	Rows      int64         // rows that are rewrapped
	Guests    int64         // machines that do something
	Bytes     int64         // that are written to disks
	Unsized   int64         // volumes that are written, of which nobody knows the size
	Time      time.Duration // one after the other
}

func (c *Cost) add(o Cost) {
	c.RootCalls += o.RootCalls
	c.Rows += o.Rows
	c.Guests += o.Guests
	c.Bytes = sum(c.Bytes, o.Bytes)
	c.Unsized += o.Unsized
	c.Time = sum(c.Time, o.Time)
}

// sum is the largest number where a fleet is larger than it, whatever is added then.
func sum[T int64 | time.Duration](a, b T) T {
	if a == math.MaxInt64 || b > 0 && a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// minus takes away what was added.
func (c Cost) minus(o Cost) Cost {
	return Cost{c.RootCalls - o.RootCalls, c.Rows - o.Rows, c.Guests - o.Guests, sum(c.Bytes, -o.Bytes), c.Unsized - o.Unsized, sum(c.Time, -o.Time)}
}

// Speed is how fast things go where the plan is carried out; what is 0 is not
// estimated.
type Speed struct {
	Roots     int           // roots of trust that wrap a keyring version
	Rewraps   int64         // secrets a second
	Rekey     time.Duration // of one volume
	Reencrypt int64         // bytes a second, of one volume
}

// rotate counts a wrap and an unwrap at each root.
func (s *Speed) rotate() Cost { return Cost{RootCalls: 2 * int64(s.Roots)} }

func (s *Speed) rewrap(rows int64) Cost {
	return Cost{Rows: rows, Time: duration(rows, s.Rewraps)}
}

func (s *Speed) rekey() Cost { return Cost{Guests: 1, Time: s.Rekey} }

func (s *Speed) reencrypt(bytes int64) Cost {
	if bytes == 0 {
		return Cost{Guests: 1, Unsized: 1}
	}
	return Cost{Guests: 1, Bytes: bytes, Time: duration(bytes, s.Reencrypt)}
}

// duration is in whole seconds, and the longest there is where it is longer.
func duration(count, perSecond int64) time.Duration {
	if perSecond <= 0 {
		return 0
	}
	seconds := count / perSecond
	if count%perSecond > 0 {
		seconds++
	}
	return time.Duration(min(seconds, math.MaxInt64/int64(time.Second))) * time.Second
}
