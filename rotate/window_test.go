package rotate

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestWindowsFollowTheClockOnTheWall(t *testing.T) {
	for name, c := range map[string]struct{ opens, zone, from, want string }{
		"winter":                             {"30 2 * * *", "Europe/Berlin", "2026-01-10T12:00:00Z", "2026-01-11T01:30:00Z"},
		"summer":                             {"30 2 * * *", "Europe/Berlin", "2026-07-10T12:00:00Z", "2026-07-11T00:30:00Z"},
		"skipped in spring":                  {"30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"},
		"the day after it":                   {"30 2 * * *", "Europe/Berlin", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"},
		"twice in autumn: the first":         {"30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"},
		"twice in autumn: not again":         {"30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"},
		"between the two":                    {"30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", "2026-10-26T01:30:00Z"},
		"before a change west of Greenwich":  {"30 1 * * *", "America/New_York", "2026-11-01T04:00:00Z", "2026-11-01T05:30:00Z"},
		"skipped west of Greenwich":          {"30 2 * * *", "America/New_York", "2026-03-08T05:00:00Z", "2026-03-08T07:00:00Z"},
		"skipped midnight":                   {"0 0 * * *", "America/Asuncion", "2023-10-01T02:00:00Z", "2023-10-01T04:00:00Z"},
		"half an hour":                       {"15 2 * * *", "Australia/Lord_Howe", "2026-10-03T10:00:00Z", "2026-10-03T15:30:00Z"},
		"weekdays":                           {"0 22 * * 1-5", "UTC", "2026-11-27T22:00:00Z", "2026-11-30T22:00:00Z"},
		"the fraction of a second before it": {"0 22 * * *", "UTC", "2026-11-27T21:59:59.999Z", "2026-11-27T22:00:00Z"},
		"the fraction of a second after it":  {"0 22 * * *", "UTC", "2026-11-27T22:00:00.001Z", "2026-11-28T22:00:00Z"},
	} {
		t.Run(name, func(t *testing.T) {
			w, err := newWindow(c.opens, c.zone, "1h")
			require.NoError(t, err)
			got, ok := w.after(at(t, c.from))
			assert.True(t, ok)
			assert.Equal(t, c.want, got.UTC().Format(time.RFC3339Nano))
		})
	}
}

func TestAnOpenWindowIsNotWaitedFor(t *testing.T) {
	w, err := newWindow("0 22 * * *", "Europe/Berlin", "6h")
	require.NoError(t, err)
	for now, want := range map[string]string{
		"2026-11-27T20:59:59Z": "2026-11-27T21:00:00Z",
		"2026-11-27T21:00:00Z": "2026-11-27T21:00:00Z",
		"2026-11-28T02:59:59Z": "2026-11-28T02:59:59Z",
		"2026-11-28T03:00:00Z": "2026-11-28T21:00:00Z",
		// From 22:00 in summer time on it is open for six hours, not until 04:00.
		"2026-10-25T01:59:59Z": "2026-10-25T01:59:59Z",
		"2026-10-25T02:00:00Z": "2026-10-25T21:00:00Z",
	} {
		got, ok := w.notBefore(at(t, now))
		assert.True(t, ok)
		assert.Equal(t, want, got.UTC().Format(time.RFC3339), now)
	}
}

func TestTheNextOfSeveralWindowsCounts(t *testing.T) {
	night, err := newWindow("0 22 * * *", "UTC", "1h")
	require.NoError(t, err)
	noon, err := newWindow("0 12 * * *", "UTC", "1h")
	require.NoError(t, err)
	s := Settings{Windows: []Window{night, noon}}
	got, ok := s.notBefore(at(t, "2026-11-27T08:00:00Z"))
	assert.True(t, ok)
	assert.Equal(t, "2026-11-27T12:00:00Z", got.UTC().Format(time.RFC3339))
}

func FuzzWindow(f *testing.F) {
	f.Add("30 2 * * *", "Europe/Berlin", int64(1774749600))
	f.Add("0 22 * * 1-5", "UTC", int64(0))
	f.Add("*/15 0-6 1,15 * *", "America/New_York", int64(1793500000))
	f.Add("0 0 30 2 *", "UTC", int64(1))
	f.Add("0 0 29 2 *", "Pacific/Apia", int64(1325239200))
	f.Add("0 0 * * * *", "UTC", int64(1))
	f.Add("0 22 L * 5#2", "Asia/Kathmandu", int64(1700000000))
	f.Fuzz(func(t *testing.T, opens, zone string, unix int64) {
		w, err := newWindow(opens, zone, "6h")
		if err != nil {
			return
		}
		now := time.Unix(unix%4_000_000_000, 0)
		next, ok := w.after(now)
		if !ok {
			return
		}
		assert.True(t, next.After(now))
		open, ok := w.notBefore(next)
		assert.True(t, ok)
		assert.True(t, open.Equal(next), "it is open when it opens")
	})
}

func at(t testing.TB, text string) time.Time {
	t.Helper()
	moment, err := time.Parse(time.RFC3339Nano, text)
	require.NoError(t, err)
	return moment
}
