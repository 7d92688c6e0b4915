package rotate

import (
	"errors"
	"fmt"
	"time"
)

// Excuse is why a machine may be late, and until when: whoever owns it answers for
// it. It changes what is reported, not what is done: what is overdue of the machine is
// counted as excused, and still done at its next boot.
type Excuse struct {
	Machine string // id
	Owner   string
	Reason  string
	Until   time.Time
}

// The bounds of an excuse: one without an end would be a rule, which belongs into the
// policy.
const (
	MaxExcuse     = 366 * day
	maxExcuseText = 500
)

// Check says what is wrong with an excuse that is made now.
func (e *Excuse) Check(now time.Time) error {
	switch {
	case e.Machine == "":
		return errors.New("an excuse is for one machine: say which")
	case e.Owner == "" || e.Reason == "":
		return errors.New("an excuse has an owner, who answers for it, and a reason: say both")
	case len(e.Owner) > maxExcuseText || len(e.Reason) > maxExcuseText:
		return fmt.Errorf("owner and reason of an excuse have at most %d bytes each", maxExcuseText)
	case !e.Until.After(now) || e.Until.After(now.Add(MaxExcuse)):
		return fmt.Errorf("an excuse ends within %s: say when", formatSpan(MaxExcuse))
	}
	return nil
}

// excuses finds those that hold at a time.
func excuses(list []Excuse, now time.Time) map[string]*Excuse {
	valid := make(map[string]*Excuse)
	for i := range list {
		if e := &list[i]; now.Before(e.Until) {
			valid[e.Machine] = e
		}
	}
	return valid
}
