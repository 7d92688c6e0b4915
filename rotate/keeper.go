package rotate

import (
	"context"
	"time"

	"keywright.dev/kms"
)

// Office is what one of several servers holds at a time; [kms.Candidate] implements it.
type Office interface {
	Stand(ctx context.Context) (term kms.Term, leads bool, err error)
	Resign(ctx context.Context) error
}

// Keeper has runs begin by a schedule, at the one server that leads.
//
// The wall clock says when, and nothing else: where it is put forward over several times
// of the schedule, one run begins; where it is put back, those that come again begin
// again, and find nothing to do.
type Keeper struct {
	Schedule *Schedule
	Clock    func() time.Time
	Office   Office
	// TakeOver ends what leaders before left, and tells whether there was any. It is
	// called once in a term.
	TakeOver func(ctx context.Context, term kms.Term) (left bool, err error)
	// Run carries out what is due. Its context ends with the term.
	Run func(ctx context.Context, term kms.Term) error
	// Failed is told what went wrong, and will be tried again.
	Failed func(error)

	checked time.Time // up to when the schedule was looked at
	term    kms.Term  // that was taken over; zero without office
	running *running
}

// running is a run under way.
type running struct {
	end  context.CancelFunc
	done chan error
}

// missed is how far back a new leader looks: what was due while nobody led is due.
const missed = 2 * time.Minute

// Keep stands for office and looks at the clock with each tick, until ctx ends. Then it
// waits for the run under way, and gives up office.
func (k *Keeper) Keep(ctx context.Context, ticks <-chan time.Time) {
	k.checked = k.Clock()
	for {
		k.look(ctx)
		select {
		case <-ticks:
		case err := <-k.outcome():
			k.ended(err)
		case <-ctx.Done():
			k.stop()
			k.tell(k.Office.Resign(context.WithoutCancel(ctx)))
			return
		}
	}
}

// look stands for office, and begins what is due.
func (k *Keeper) look(ctx context.Context) {
	term, leads, err := k.Office.Stand(ctx)
	k.tell(err)
	if !leads || term != k.term {
		k.stop()
	}
	now := k.Clock()
	if !leads {
		k.term = kms.Term{}
		k.checked = now.Add(-missed)
		return
	}
	left := false
	if term != k.term {
		if left, err = k.TakeOver(ctx, term); err != nil {
			k.tell(err)
			return
		}
		k.term = term
	}
	if due := k.due(now); (due || left) && k.running == nil {
		k.begin(ctx, term)
	}
}

// due tells whether a time of the schedule came since it was asked last.
func (k *Keeper) due(now time.Time) bool {
	if now.Before(k.checked) { // the clock was put back
		k.checked = now
	}
	next := k.Schedule.Next(k.checked)
	if next.IsZero() || next.After(now) {
		return false
	}
	k.checked = now
	return true
}

func (k *Keeper) begin(ctx context.Context, term kms.Term) {
	ctx, end := context.WithCancel(ctx)
	r := &running{end, make(chan error, 1)}
	k.running = r
	go func() { r.done <- k.Run(ctx, term) }()
}

// outcome is of the run under way; nil, which never comes, without one.
func (k *Keeper) outcome() chan error {
	if k.running == nil {
		return nil
	}
	return k.running.done
}

// stop ends the run under way and waits for it.
func (k *Keeper) stop() {
	if k.running != nil {
		k.running.end()
		k.ended(<-k.running.done)
	}
}

func (k *Keeper) ended(err error) {
	k.running.end()
	k.running = nil
	k.tell(err)
}

func (k *Keeper) tell(err error) {
	if err != nil {
		k.Failed(err)
	}
}
