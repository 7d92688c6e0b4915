package rotate

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/adhocore/gronx"
)

// Window is when work may begin: from each opening on, for a while.
//
// It opens at times of a clock on a wall. A time that clocks skip in spring opens it
// in the moment in which they skip it; one that comes twice in autumn opens it once, at
// the first. It stays open for as long as Lasts says, whatever the clock does.
type Window struct {
	// Opens is a cron expression of five fields: minute, hour, day of the month,
	// month, day of the week.
	Opens string
	Zone  *time.Location
	Lasts time.Duration
}

const (
	minWindow = 10 * time.Minute
	maxWindow = 7 * day
)

func newWindow(opens, zone, lasts string) (Window, error) {
	w := Window{Opens: opens}
	var err error
	if w.Zone, err = loadZone(zone); err != nil {
		return Window{}, err
	}
	if w.Lasts, err = parseSpan(lasts); err != nil || w.Lasts < minWindow || w.Lasts > maxWindow {
		return Window{}, fmt.Errorf("lasts: want a time from 10m to 7d, such as 6h, not %.80q", lasts)
	}
	if err := w.check(); err != nil {
		return Window{}, fmt.Errorf("opens: %w", err)
	}
	return w, nil
}

// check refuses an expression that cannot be meant.
func (w *Window) check() error {
	if len(w.Opens) > 100 || len(strings.Fields(w.Opens)) != 5 || !gronx.IsValid(w.Opens) {
		return fmt.Errorf(`want five fields as in a crontab, such as "0 22 * * 1-5", not %.80q`, w.Opens)
	}
	// The expression alone decides whether there is such a day at all.
	if _, ok := w.after(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)); !ok {
		return fmt.Errorf("there is no such day as %.80q asks for", w.Opens)
	}
	return nil
}

func loadZone(name string) (*time.Location, error) {
	// Local would be another zone on every host.
	if name == "" || name == "Local" {
		return nil, errors.New(`zone: want the name of a time zone, such as "Europe/Berlin" or "UTC"`)
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf(`zone: this system knows no time zone %.80q: want a name such as "Europe/Berlin" or "UTC"`, name)
	}
	return zone, nil
}

// notBefore returns now while the window is open, else its next opening; false where
// there is none.
func (w *Window) notBefore(now time.Time) (time.Time, bool) {
	opens, ok := w.after(now.Add(-w.Lasts))
	if ok && opens.Before(now) {
		return now, true
	}
	return opens, ok
}

// after returns the first opening after t.
func (w *Window) after(t time.Time) (time.Time, bool) {
	for clock := wall(t.In(w.Zone)); ; {
		next, err := gronx.NextTickAfter(w.Opens, clock, false)
		if err != nil || !next.After(clock) {
			return time.Time{}, false
		}
		if opens := moment(next, w.Zone); opens.After(t) {
			return opens, true
		}
		clock = next
	}
}

// wall returns what the clock on the wall shows, as if it were UTC: there every time
// comes exactly once.
func wall(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}

// moment returns when a clock in the zone first shows a time or, where it never
// does, when it skips it.
func moment(clock time.Time, zone *time.Location) time.Time {
	t := time.Date(clock.Year(), clock.Month(), clock.Day(), clock.Hour(), clock.Minute(), 0, 0, zone)
	start, end := t.ZoneBounds()
	if shown := wall(t); !shown.Equal(clock) {
		// t is on one of the two sides of the change.
		if shown.After(clock) {
			return start
		}
		return end
	}
	if start.IsZero() {
		return t
	}
	// The offset before the last change shows the same time earlier, if it came twice.
	_, before := start.Add(-time.Second).Zone()
	_, offset := t.Zone()
	earlier := t.Add(time.Duration(offset-before) * time.Second)
	if earlier.Before(start) && wall(earlier.In(zone)).Equal(clock) {
		return earlier
	}
	return t
}

// notBefore returns when work that is due may begin; false where never.
func (s *Settings) notBefore(now time.Time) (first time.Time, ok bool) {
	if len(s.Windows) == 0 {
		return now, true
	}
	for i := range s.Windows {
		if t, found := s.Windows[i].notBefore(now); found && (!ok || t.Before(first)) {
			first, ok = t, true
		}
	}
	return first, ok
}
