package rotate

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
)

// office is held as it is told.
type office struct {
	epoch    atomic.Uint64 // 0: another leads
	resigned atomic.Bool
}

func (o *office) Stand(context.Context) (kms.Term, bool, error) {
	epoch := o.epoch.Load()
	return kms.Term{Name: "rotation", Epoch: epoch}, epoch > 0, nil
}

func (o *office) Resign(context.Context) error {
	o.resigned.Store(true)
	return nil
}

// kept is a keeper over clocks of its own, whose runs end at once, or once they are told to.
type kept struct {
	*Keeper
	office office
	ahead  atomic.Int64 // of the wall clock
	began  atomic.Int64
	ended  atomic.Int64
	left   atomic.Bool
	failed atomic.Int64
	hang   atomic.Bool
	stop   context.CancelFunc
}

func keep(t *testing.T, opens string) *kept {
	t.Helper()
	schedule, err := ParseSchedule(opens, "UTC")
	require.NoError(t, err)
	k := &kept{}
	k.office.epoch.Store(1)
	k.Keeper = &Keeper{
		Schedule: schedule, Clock: func() time.Time { return time.Now().Add(time.Duration(k.ahead.Load())) },
		Office:   &k.office,
		TakeOver: func(context.Context, kms.Term) (bool, error) { return k.left.Swap(false), nil },
		Run: func(ctx context.Context, _ kms.Term) error {
			k.began.Add(1)
			defer k.ended.Add(1)
			if k.hang.Load() {
				<-ctx.Done()
			}
			return errors.New("what was done is told")
		},
		Failed: func(error) { k.failed.Add(1) },
	}
	ctx, stop := context.WithCancel(t.Context())
	k.stop = stop
	ticker := time.NewTicker(10 * time.Second)
	t.Cleanup(ticker.Stop)
	go k.Keep(ctx, ticker.C)
	return k
}

// pass lets time go by.
func (k *kept) pass(d time.Duration) (began int64) {
	time.Sleep(d)
	synctest.Wait()
	return k.began.Swap(0)
}

// The bubble's clock begins at midnight, UTC.
func TestRunsBeginByTheSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keep(t, "0 * * * *")
		assert.Zero(t, k.pass(59*time.Minute))
		assert.EqualValues(t, 1, k.pass(90*time.Second))
		assert.EqualValues(t, 3, k.pass(3*time.Hour))
		assert.EqualValues(t, 4, k.failed.Load(), "what a run ends with is told")
		k.stop()
		synctest.Wait()
		assert.True(t, k.office.resigned.Load())
	})
}

func TestAClockPutForwardBeginsOneRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keep(t, "0 * * * *")
		require.EqualValues(t, 1, k.pass(time.Hour+time.Minute))
		k.ahead.Store(int64(100 * day))
		assert.EqualValues(t, 1, k.pass(20*time.Second), "one for all the hours that never were")
		assert.EqualValues(t, 1, k.pass(time.Hour))
		k.stop()
	})
}

func TestAClockPutBackStopsNoRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keep(t, "0 * * * *")
		require.EqualValues(t, 2, k.pass(2*time.Hour+time.Minute))
		k.ahead.Store(int64(-100 * day))
		assert.Zero(t, k.pass(20*time.Second))
		assert.EqualValues(t, 2, k.pass(2*time.Hour), "by the clock as it is now")
		k.stop()
	})
}

func TestWhoLosesOfficeStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keep(t, "0 * * * *")
		k.hang.Store(true)
		require.EqualValues(t, 1, k.pass(time.Hour+time.Minute))
		assert.Zero(t, k.pass(2*time.Hour), "one at a time")
		assert.Zero(t, k.ended.Load())
		k.office.epoch.Store(0)
		assert.Zero(t, k.pass(20*time.Second))
		assert.EqualValues(t, 1, k.ended.Load())
		assert.Zero(t, k.pass(2*time.Hour), "another leads")

		// What was due a moment before it led again is due.
		time.Sleep(58*time.Minute + 30*time.Second)
		k.office.epoch.Store(3)
		assert.EqualValues(t, 1, k.pass(20*time.Second))
		k.office.epoch.Store(5)
		assert.Zero(t, k.pass(20*time.Second))
		assert.EqualValues(t, 2, k.ended.Load(), "a run is of its term")
		k.stop()
		synctest.Wait()
		assert.True(t, k.office.resigned.Load())
	})
}

func TestANewLeaderGoesOnWithWhatWasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keep(t, "0 0 1 1 *")
		assert.Zero(t, k.pass(time.Minute))
		k.left.Store(true)
		assert.Zero(t, k.pass(time.Minute), "it leads already")
		k.office.epoch.Store(2)
		assert.EqualValues(t, 1, k.pass(time.Minute))
		k.stop()
	})
}

func TestParseSchedule(t *testing.T) {
	s, err := ParseSchedule("30 2 * * *", "Europe/Berlin")
	require.NoError(t, err)
	assert.Equal(t, "30 2 * * * Europe/Berlin", s.String())
	assert.Equal(t, "2026-11-28T01:30:00Z", s.Next(at(t, "2026-11-27T12:00:00Z")).UTC().Format(time.RFC3339))
	for _, c := range [][2]string{{"30 2 * *", "UTC"}, {"x 2 * * *", "UTC"}, {"0 0 30 2 *", "UTC"}, {"0 0 * * *", "Local"}, {"0 0 * * *", "Mars"}, {"@daily", "UTC"}} {
		_, err := ParseSchedule(c[0], c[1])
		assert.Error(t, err, c)
	}
}

func FuzzParseSchedule(f *testing.F) {
	for _, opens := range []string{"*/10 * * * *", "30 2 * * 1-5", "0 0 29 2 *", "0 0 30 2 *", "@daily", "x", "60 * * * *", "* * * * * *"} {
		f.Add(opens, "Europe/Berlin")
	}
	f.Add("0 0 * * *", "Local")
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, opens, zone string) {
		s, err := ParseSchedule(opens, zone)
		if err != nil {
			return
		}
		if next := s.Next(now); !next.IsZero() {
			assert.True(t, next.After(now), "%s: %s", s, next)
		}
	})
}
