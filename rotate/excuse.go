package rotate

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// Excuse is why a machine may be late, and until when: whoever owns it answers for
// it. It changes what is reported, not what is done: what is overdue of the machine is
// counted as excused, and still done at its next boot.
type Excuse struct {
	Machine string // id or name
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

// excusesFile are excuses as they are written; see docs/rotation.md.
type excusesFile struct {
	Excuses []struct {
		Machine quoted `toml:"machine"`
		Owner   quoted `toml:"owner"`
		Reason  quoted `toml:"reason"`
		Until   quoted `toml:"until"`
	} `toml:"excuse"`
}

// ParseExcuses reads a file of excuses. Those that have ended are left out. Its error
// lists, a line each, what is wrong.
func ParseExcuses(text []byte, now time.Time) ([]Excuse, error) {
	if len(text) > MaxPolicy {
		return nil, fmt.Errorf("the excuses have more than %d bytes", MaxPolicy)
	}
	var file excusesFile
	meta, err := toml.Decode(string(text), &file)
	if err != nil {
		return nil, syntaxError(err)
	}
	if err := unknownKeys(meta.Undecoded()); err != nil {
		return nil, err
	}
	var list []Excuse
	var errs []error
	for i, f := range file.Excuses {
		e := Excuse{Machine: strings.TrimPrefix(string(f.Machine), "machine/"), Owner: string(f.Owner), Reason: string(f.Reason)}
		until, err := time.Parse(time.DateOnly, string(f.Until))
		if err != nil {
			errs = append(errs, fmt.Errorf(`excuse %d: until: want a date such as "2027-01-31"`, i+1))
			continue
		}
		if e.Until = until.Add(day); e.Until.After(now) { // the day itself included
			if err := e.Check(now); err != nil {
				errs = append(errs, fmt.Errorf("excuse %d: %w", i+1, err))
			}
			list = append(list, e)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return list, nil
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
