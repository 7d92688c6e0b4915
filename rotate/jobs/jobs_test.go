package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/riverqueue/river"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/rotate"
)

func openQueue(t *testing.T, path string) *Queue {
	t.Helper()
	q, err := Open(t.Context(), Config{Path: path, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	q.wait = waiting{poll: time.Millisecond, again: 20 * time.Millisecond}
	t.Cleanup(func() { assert.NoError(t, q.Close()) })
	return q
}

func someSteps(count int) []rotate.Step {
	steps := make([]rotate.Step, count)
	for i := range steps {
		steps[i].Kind = rotate.RekeyVolume
		steps[i].Object = rotate.Object{Type: "volume", Name: fmt.Sprintf("%032x", i)}
	}
	return steps
}

// tally counts how often each step was worked on.
type tally struct {
	lock  sync.Mutex
	count map[string]int
}

func (c *tally) work(_ context.Context, s *rotate.Step) error {
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.count == nil {
		c.count = map[string]int{}
	}
	c.count[s.Object.Name]++
	return nil
}

func (c *tally) once(t *testing.T, steps []rotate.Step) {
	t.Helper()
	assert.Len(t, c.count, len(steps))
	for name, n := range c.count {
		assert.Equal(t, 1, n, name)
	}
}

func TestEveryStepIsWorkedOnOnce(t *testing.T) {
	q := openQueue(t, filepath.Join(t.TempDir(), "jobs.db"))
	for range 2 {
		var c tally
		steps := someSteps(20)
		require.NoError(t, q.Do(t.Context(), steps, c.work))
		c.once(t, steps)
	}
	require.NoError(t, q.Do(t.Context(), nil, nil))
}

// What panics ends the round, and is not waited for.
func TestAStepThatPanicsEndsTheRound(t *testing.T) {
	q := openQueue(t, filepath.Join(t.TempDir(), "jobs.db"))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	steps := someSteps(3)
	err := q.Do(ctx, steps, func(_ context.Context, s *rotate.Step) error {
		if s == &steps[1] {
			panic("a mistake")
		}
		return nil
	})
	require.ErrorContains(t, err, "panicked: a mistake")
	require.NoError(t, q.Do(ctx, steps, func(context.Context, *rotate.Step) error { return nil }))
}

func TestAJobThatIsDoubledChangesNothing(t *testing.T) {
	q := openQueue(t, filepath.Join(t.TempDir(), "jobs.db"))
	var c tally
	steps := someSteps(20)
	var once sync.Once
	require.NoError(t, q.Do(t.Context(), steps, func(ctx context.Context, s *rotate.Step) error {
		once.Do(func() {
			_, err := q.db.ExecContext(ctx, `INSERT INTO river_job (args, kind, max_attempts, priority, queue, state, metadata, tags)
				SELECT args, kind, max_attempts, priority, queue, 'available', metadata, tags FROM river_job`)
			assert.NoError(t, err)
		})
		if s == &steps[len(steps)-1] { // the round lasts until every double was seen
			assert.Eventually(t, func() bool {
				var seen int
				err := q.db.QueryRowContext(ctx, "SELECT count(*) FROM river_job WHERE state = 'completed'").Scan(&seen)
				return err == nil && seen >= 2*len(steps)-1
			}, 10*time.Second, 10*time.Millisecond)
		}
		return c.work(ctx, s)
	}))
	c.once(t, steps)
}

func TestAJobThatIsLostIsGivenAgain(t *testing.T) {
	q := openQueue(t, filepath.Join(t.TempDir(), "jobs.db"))
	var c tally
	steps := someSteps(20)
	var once sync.Once
	require.NoError(t, q.Do(t.Context(), steps, func(ctx context.Context, s *rotate.Step) error {
		once.Do(func() {
			_, err := q.db.ExecContext(ctx, "DELETE FROM river_job WHERE state = 'available'")
			assert.NoError(t, err)
		})
		return c.work(ctx, s)
	}))
	c.once(t, steps)
}

// What another round left in the queue is nobody's.
func TestAJobOfAnotherRoundChangesNothing(t *testing.T) {
	q := openQueue(t, filepath.Join(t.TempDir(), "jobs.db"))
	r := &round{id: 7, ctx: t.Context(), steps: someSteps(1), begun: make([]bool, 1), left: 1, done: make(chan struct{})}
	var c tally
	r.work = c.work
	w := &worker{round: r}
	for _, args := range []hint{{Round: 6}, {Round: 7, Step: 1}, {Round: 7, Step: -1}} {
		require.NoError(t, w.Work(t.Context(), &river.Job[hint]{Args: args}))
	}
	assert.Empty(t, c.count)
	require.NoError(t, w.Work(t.Context(), &river.Job[hint]{Args: hint{Round: 7}}))
	c.once(t, r.steps)

	for range 3 {
		require.NoError(t, q.Do(t.Context(), someSteps(5), new(tally).work))
	}
	var jobs int
	require.NoError(t, q.db.QueryRow("SELECT count(*) FROM river_job").Scan(&jobs))
	assert.Less(t, jobs, 3*5, "the file does not grow with the rounds")
}

func TestAnErrorEndsARound(t *testing.T) {
	q := openQueue(t, filepath.Join(t.TempDir(), "jobs.db"))
	broken := errors.New("another leads")
	assert.ErrorIs(t, q.Do(t.Context(), someSteps(20), func(context.Context, *rotate.Step) error { return broken }), broken)
	ctx, stop := context.WithCancel(t.Context())
	assert.ErrorIs(t, q.Do(ctx, someSteps(20), func(ctx context.Context, _ *rotate.Step) error {
		stop()
		<-ctx.Done()
		return ctx.Err()
	}), context.Canceled)
	var c tally
	steps := someSteps(3)
	require.NoError(t, q.Do(t.Context(), steps, c.work), "the next round is not the worse for it")
	c.once(t, steps)
}

func TestAFileThatDoesNotOpenIsMadeAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jobs.db")
	require.NoError(t, os.WriteFile(path, []byte("this is no database, and is as long as the header of one would be: one hundred bytes, or some more of them"), 0o600))
	q := openQueue(t, path)
	var c tally
	steps := someSteps(3)
	require.NoError(t, q.Do(t.Context(), steps, c.work))
	c.once(t, steps)
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode())
	_, err = Open(t.Context(), Config{Path: filepath.Join(t.TempDir(), "none", "jobs.db"), Logger: slog.New(slog.DiscardHandler)})
	assert.ErrorContains(t, err, "opening the queue of rotations")
}
