package rotate

import (
	"cmp"
	"time"
)

// maxLate bounds what a plan names of what is late.
const maxLate = 500

// Lateness counts what is older than its rule lets it become, and names the oldest.
type Lateness struct {
	Count int64
	First []Late
}

// Late is one thing that should have been done by its deadline.
type Late struct {
	Action
	Machine  string // id
	Deadline time.Time
	// Seen is when the machine was last seen, Ordered that an order is open.
	Seen    time.Time
	Ordered bool
	// Excuse is why it may be late; nil where nobody said so.
	Excuse *Excuse
}

type lateness struct {
	count int64
	best[Late]
}

func newLateness() lateness {
	return lateness{best: best[Late]{limit: maxLate, compare: func(a, b Late) int {
		return cmp.Or(a.Deadline.Compare(b.Deadline), cmp.Compare(a.Object.Name, b.Object.Name), cmp.Compare(a.Kind, b.Kind))
	}}}
}

func (l *lateness) add(late Late) {
	l.count++
	l.best.add(late)
}

func (l *lateness) list() Lateness { return Lateness{l.count, l.first(maxLate)} }
