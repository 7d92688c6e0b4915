package rotate

import (
	"errors"
	"fmt"
	"time"

	"keywright.dev/kms"
)

// maxConcurrency bounds what a plan holds of a rule.
const maxConcurrency = 10_000

// over lays what is set over settings, and lists what is wrong.
func (f *settingsFile) over(s *Settings) []error {
	var l layer
	l.number("priority", f.Priority, &s.Priority, 0, 100)
	l.age("keyring_age", f.KeyringAge, &s.KeyringAge)
	l.age("secret_age", f.SecretAge, &s.SecretAge)
	l.age("volume_key_age", f.VolumeKeyAge, &s.VolumeKeyAge)
	l.jitter(f.Jitter, s)
	l.windows(f.Windows, &s.Windows)
	l.rate(f.Rate, &s.Rate)
	l.number("concurrency", f.Concurrency, &s.Concurrency, 1, maxConcurrency)
	l.span("answer_within", f.AnswerWithin, &s.AnswerWithin)
	l.span("retain_for_restore", f.RetainForRestore, &s.RetainForRestore)
	l.span("destroy_wait", f.DestroyWait, &s.DestroyWait)
	l.boots(f.RetireMeasurementsAfter, &s.RetireMeasurementsAfter)
	if s.DestroyWait < kms.MinDestroyWait || s.DestroyWait > kms.MaxDestroyWait {
		l.wrong("destroy_wait", fmt.Errorf("want %s to %s", formatSpan(kms.MinDestroyWait), formatSpan(kms.MaxDestroyWait)))
	}
	return l.errs
}

// layer sets what a file sets and collects what is wrong with it.
type layer struct{ errs []error }

func (l *layer) wrong(key string, err error) { l.errs = append(l.errs, fmt.Errorf("%s: %w", key, err)) }

func (l *layer) number(key string, text *whole, to *int, least, most int) {
	if text == nil {
		return
	}
	if *to = int(*text); *to < least || *to > most {
		l.wrong(key, fmt.Errorf("want a number from %d to %d", least, most))
	}
}

// boots counts good boots; text is never.
func (l *layer) boots(text *count, to *int) {
	if text == nil {
		return
	}
	if *to = int(*text); *to < 0 || *to > kms.MaxRetireAfter {
		l.wrong("retire_measurements_after", fmt.Errorf(`want "never", or a number from 1 to %d`, kms.MaxRetireAfter))
	}
}

func (l *layer) age(key string, text *quoted, to *Age) { set(l, key, text, to, parseAge) }

func (l *layer) span(key string, text *quoted, to *time.Duration) { set(l, key, text, to, parseSpan) }

func (l *layer) rate(text *quoted, to *Rate) { set(l, "rate", text, to, parseRate) }

func set[T any](l *layer, key string, text *quoted, to *T, parse func(string) (T, error)) {
	if text == nil {
		return
	}
	value, err := parse(string(*text))
	if err != nil {
		l.wrong(key, err)
		return
	}
	*to = value
}

// jitter may be none, and leaves each age at least half of itself: one that nobody
// set is shortened where ages are short.
func (l *layer) jitter(text *quoted, s *Settings) {
	set(l, "jitter", text, &s.Jitter, func(text string) (time.Duration, error) {
		if text == "none" {
			return 0, nil
		}
		if d, err := parseSpan(text); err == nil {
			return d, nil
		}
		return 0, errors.New(`want "none", or a number and w, d, h or m, such as 7d`)
	})
	for _, age := range []Age{s.KeyringAge, s.SecretAge, s.VolumeKeyAge} {
		if age == Never || s.Jitter <= time.Duration(age)/2 {
			continue
		}
		if text != nil {
			l.wrong("jitter", fmt.Errorf("want at most half of the shortest age, which is %s", age))
			return
		}
		s.Jitter = time.Duration(age) / 2
	}
}

// windows replace the ones before; an empty list is always.
func (l *layer) windows(list []windowFile, to *[]Window) {
	if list == nil {
		return
	}
	if len(list) > maxWindows {
		l.wrong("windows", fmt.Errorf("want at most %d", maxWindows))
		return
	}
	*to = nil
	for i, f := range list {
		w, err := newWindow(string(f.Opens), string(f.Zone), string(f.Lasts))
		if err != nil {
			l.wrong(fmt.Sprintf("windows: entry %d", i+1), err)
		}
		*to = append(*to, w)
	}
}
