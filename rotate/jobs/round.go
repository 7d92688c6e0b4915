package jobs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/riverqueue/river"

	"keywright.dev/rotate"
)

// maxAbreast bounds the steps that are worked on at once. Most are one transaction each,
// and there is one writer.
const maxAbreast = 4

// waiting are the times of a round.
type waiting struct {
	poll  time.Duration // between two looks for jobs
	again time.Duration // in which nothing moved, after which what is left is given again
}

func defaultWaiting() waiting { return waiting{poll: 100 * time.Millisecond, again: 30 * time.Second} }

// hint is the job of a step.
type hint struct {
	Round int64  `json:"round"`
	Step  int    `json:"step"`
	Name  string `json:"name"` // for whoever looks at the queue
}

// Kind implements [river.JobArgs].
func (hint) Kind() string { return "rotation-step" }

// worker begins steps of a round.
type worker struct {
	river.WorkerDefaults[hint]
	round *round
}

// Work implements [river.Worker]. A job of another round, or of a step that was begun,
// is done: it has nothing to say.
func (w *worker) Work(_ context.Context, job *river.Job[hint]) error {
	if job.Args.Round == w.round.id {
		w.round.begin(job.Args.Step)
	}
	return nil
}

// round is what one call of [Queue.Do] waits for.
type round struct {
	id    int64
	ctx   context.Context //nolint:containedctx // the caller's: River's outlives it
	steps []rotate.Step
	work  func(context.Context, *rotate.Step) error
	stop  context.CancelCauseFunc

	lock  sync.Mutex
	begun []bool
	// working counts the steps at hand, moved those that were begun or done since it was
	// asked last.
	working, moved int
	left           int
	done           chan struct{} // closed once every step is done
}

// begin does a step that nobody began.
func (r *round) begin(step int) {
	r.lock.Lock()
	known := step >= 0 && step < len(r.steps) && !r.begun[step] && r.ctx.Err() == nil
	if known {
		r.begun[step] = true
		r.working++
		r.moved++
	}
	r.lock.Unlock()
	if !known {
		return
	}
	defer r.end()
	if err := r.try(&r.steps[step]); err != nil {
		r.stop(err)
	}
}

// try has a panic end the round: River would take it for the job's failure alone, and the
// step be waited for.
func (r *round) try(s *rotate.Step) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s panicked: %v\n%s", s, p, debug.Stack())
		}
	}()
	return r.work(r.ctx, s)
}

// end notes that a step is done, whatever came of it.
func (r *round) end() {
	r.lock.Lock()
	defer r.lock.Unlock()
	r.working--
	r.moved++
	if r.left--; r.left == 0 {
		close(r.done)
	}
}

// still tells that nothing moved since it was asked last, and nothing is at hand: the
// jobs of what is left are lost.
func (r *round) still() bool {
	r.lock.Lock()
	defer r.lock.Unlock()
	still := r.moved == 0 && r.working == 0
	r.moved = 0
	return still
}

// hints are the jobs of what nobody began.
func (r *round) hints() (jobs []river.InsertManyParams) {
	r.lock.Lock()
	defer r.lock.Unlock()
	for i := range r.steps {
		if !r.begun[i] {
			jobs = append(jobs, river.InsertManyParams{Args: hint{r.id, i, r.steps[i].String()}})
		}
	}
	return jobs
}

// Do has steps worked on, a few at a time and in any order, and returns once all are
// done. The work's error ends the round, and so does the context; then what was begun
// has ended, and the rest is not begun.
func (q *Queue) Do(ctx context.Context, steps []rotate.Step, work func(context.Context, *rotate.Step) error) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	r := &round{
		id: time.Now().UnixNano(), ctx: ctx, steps: steps, work: work, stop: stop,
		begun: make([]bool, len(steps)), left: len(steps), done: make(chan struct{}),
	}
	if len(steps) == 0 {
		return nil
	}
	client, err := q.client(r)
	if err != nil {
		return fmt.Errorf("making a queue of rotations: %w", err)
	}
	return q.drive(ctx, client, r)
}

// drive gives the jobs of a round, again where they are lost, until it ends.
func (q *Queue) drive(ctx context.Context, client *river.Client[*sql.Tx], r *round) error {
	// River goes on until it is stopped, so that what it has begun comes to its end.
	going := context.WithoutCancel(ctx)
	if err := q.clear(ctx); err != nil {
		return fmt.Errorf("emptying the queue of rotations: %w", err)
	}
	if err := client.Start(going); err != nil {
		return fmt.Errorf("starting the queue of rotations: %w", err)
	}
	err := q.give(ctx, client, r)
	again := time.NewTicker(q.wait.again)
	defer again.Stop()
	for err == nil {
		select {
		case <-again.C:
			if r.still() {
				err = q.give(ctx, client, r)
			}
			continue
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-r.done:
		}
		break
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	r.stop(err)
	if stopErr := client.Stop(going); stopErr != nil {
		err = errors.Join(err, fmt.Errorf("stopping the queue of rotations: %w", stopErr))
	}
	return err
}

// clear deletes what rounds before left, so that the file does not grow.
func (q *Queue) clear(ctx context.Context) error {
	for _, text := range []string{"DELETE FROM river_job", "DELETE FROM river_notification"} {
		if _, err := q.db.ExecContext(ctx, text); err != nil {
			return err
		}
	}
	return nil
}

func (q *Queue) give(ctx context.Context, client *river.Client[*sql.Tx], r *round) error {
	hints := r.hints()
	if len(hints) == 0 {
		return nil
	}
	if _, err := client.InsertMany(ctx, hints); err != nil {
		return fmt.Errorf("queueing steps of rotations: %w", err)
	}
	return nil
}
