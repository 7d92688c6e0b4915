//go:build integration

package server_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/cmd/keywright/serve"
	"keywright.dev/kms"
	"keywright.dev/kms/api"
	"keywright.dev/rotate"
	"keywright.dev/test/kill"
)

func TestMain(m *testing.M) {
	kill.Main(m, map[string]kill.Work{"schedule": scheduleIn})
}

// beforeMinute is how far ahead a clock is on which everything is due, and which is about to
// show the next minute.
func beforeMinute() time.Duration {
	const later = 400 * 24 * time.Hour
	now := time.Now().Add(later)
	return later + now.Truncate(time.Minute).Add(time.Minute-100*time.Millisecond).Sub(now)
}

// killStandEvery is shorter than in other tests: after each kill the next process waits
// for a term to end.
const killStandEvery = 100 * time.Millisecond

// scheduleIn serves until one run by the schedule has ended; it dies before or after each
// transaction of the run, and of the office that it is carried out in.
func scheduleIn(folder string, at *kill.Countdown) error {
	ahead := beforeMinute()
	service, err := serve.Open(context.Background(), serve.Options{
		Config: scheduledConfig(folder), Version: "test", Logger: slog.New(slog.DiscardHandler), StandEvery: killStandEvery,
		Clock: func() time.Time { return time.Now().Add(ahead) }, Uptime: serve.Uptime,
	})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	service.Server.Service.Store = pointed{service.Server.Service.Store, at}
	service.Server.Queue = pointedQueue{service.Server.Queue, at}
	at.Begin()
	ended := make(chan error, 1)
	go func() { ended <- service.Run(ctx) }()
	operator := api.NewOperatorClient(service.Socket)
	defer operator.Close()
	for ticker := time.NewTicker(killStandEvery); ; {
		now, err := operator.Rotation(ctx, 10)
		if err == nil && len(now.Runs) > 0 && now.Runs[0].Ended != nil && now.Runs[0].Outcome != string(kms.RunStopped) {
			break
		}
		select {
		case err := <-ended:
			stop()
			return err
		case <-ticker.C:
		}
	}
	stop()
	return <-ended
}

// pointed dies around the transactions of a term.
type pointed struct {
	kms.Store
	at *kill.Countdown
}

func (p pointed) Transact(ctx context.Context, key kms.Key, decide func(kms.State) (kms.Outcome, error)) error {
	if key.Term == nil {
		return p.Store.Transact(ctx, key, decide)
	}
	p.at.Point()
	err := p.Store.Transact(ctx, key, decide)
	p.at.Point()
	return err
}

// pointedQueue dies around rounds of steps.
type pointedQueue struct {
	queue interface {
		Do(ctx context.Context, steps []rotate.Step, work func(context.Context, *rotate.Step) error) error
	}
	at *kill.Countdown
}

func (p pointedQueue) Do(ctx context.Context, steps []rotate.Step, work func(context.Context, *rotate.Step) error) error {
	p.at.Point()
	err := p.queue.Do(ctx, steps, work)
	p.at.Point()
	return err
}

// TestKilledWhileItRotatesByItself kills the service at each step of a scheduled run.
// Started again, with the queue or without, it ends what was left and converges.
func TestKilledWhileItRotatesByItself(t *testing.T) {
	pristine := t.TempDir()
	s := openScheduled(t, pristine, nil)
	s.run()
	s.active("web-17")
	s.close()
	even := false
	killed := kill.AtEachPoint(t, "schedule", pristine, func(folder string) {
		if even = !even; even {
			for _, suffix := range []string{"", "-wal", "-shm"} {
				require.NoError(t, os.RemoveAll(filepath.Join(folder, "d", "rotation-jobs.db"+suffix)))
			}
		}
		s := openScheduled(t, folder, nil)
		s.ahead.Store(int64(beforeMinute()))
		s.run()
		defer s.close()
		operator := s.operator()
		runs := s.history(func(runs []api.RotationRun) bool {
			plan, err := operator.RotationPlan(context.Background(), time.Time{}, 0)
			require.NoError(t, err)
			return ended(1)(runs) && slices.Equal(kindsOf(plan), []string{"destroy-keyring-version"})
		})
		for _, r := range runs[1:] {
			assert.Equal(t, "stopped", r.Outcome, "%+v", runs)
		}
		assert.EqualValues(t, 2, s.current(), "rotated once, however often it began")
	})
	assert.Greater(t, killed, 20, "points")
	t.Logf("killed at %d points", killed)
}
