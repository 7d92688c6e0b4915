package rotate

import "time"

// Schedule says when a service rotates by itself.
type Schedule struct{ window Window }

// ParseSchedule reads a cron expression of five fields and the name of a time zone, as
// [Window] has them.
func ParseSchedule(opens, zone string) (*Schedule, error) {
	w := Window{Opens: opens}
	var err error
	if w.Zone, err = loadZone(zone); err != nil {
		return nil, err
	}
	if err := w.check(); err != nil {
		return nil, err
	}
	return &Schedule{w}, nil
}

// Next returns the first time after t; the zero time where there is none.
func (s *Schedule) Next(t time.Time) time.Time {
	next, _ := s.window.after(t)
	return next
}

// String returns what it was read from.
func (s *Schedule) String() string { return s.window.Opens + " " + s.window.Zone.String() }
