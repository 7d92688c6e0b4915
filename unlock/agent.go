package unlock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
)

// OrderService is what an agent waits at; [*api.GuestClient] is one.
type OrderService interface {
	Orders(ctx context.Context, machine string) (api.OrdersResponse, error)
}

// OrderServer is one of the service's servers, as an agent waits at it.
type OrderServer struct {
	Host string // for people
	OrderService
}

// Orders is what an agent knows of its machine: where to wait for orders, and how
// to carry them out.
type Orders struct {
	Machine string // id
	Servers []OrderServer
	Volumes []VolumeConfig
	// Pins are the service keys that the configuration pins.
	Pins [][32]byte
	// Repin has somebody take over the service's keys, which are others.
	Repin func() error
	// Begin makes ready to carry out orders, of which the server at an index told.
	Begin func(ctx context.Context, server int) (carry func(ctx context.Context, v Volume) (ordered bool, err error), end func(), err error)
}

// Agent waits in the running system until the service orders something of this
// machine's volumes, and has it carried out. All fields are required.
type Agent struct {
	// Orders is asked anew before each wait: volumes are added meanwhile. Where its
	// error wraps [fs.ErrNotExist], the machine is not enrolled any more.
	Orders func() (*Orders, error)
	Clock  Clock
	// Random is in [0, 1).
	Random func() float64
	// Log takes a line for each thing that happens.
	Log func(line string)

	told   [][32]byte // service keys that were passed on
	tell   time.Time  // when others may be
	server int        // of Orders.Servers, which is waited at
	said   string     // what was logged of why nobody can be waited at
	silent *pace      // after no answer, or a refusal
	vain   *pace      // after orders of which none could be carried out
}

const (
	// ordersTimeout is longer than a server has anybody wait for orders.
	ordersTimeout = 75 * time.Second
	// betweenWaits is the longest time from one wait to the next one, so that a
	// server that answers at once is not asked in a loop.
	betweenWaits = 2 * time.Second
	// longestSilence bounds how long a server that does not answer is left alone.
	longestSilence = 5 * time.Minute
	// firstVain and longestVain are how long an agent waits before it tries again
	// what it could not do: the service gives out the secrets of an order a few
	// times, and what is in the way is a person's to remove.
	firstVain   = 30 * time.Second
	longestVain = 15 * time.Minute
	// betweenHints keeps who stands in between from having them passed on in a loop.
	betweenHints = 10 * time.Minute
	// maxAgain bounds what a server, or who stands in its place, may ask for.
	maxAgain = 10 * time.Minute
)

// Run waits for orders and carries them out until ctx ends, or the machine is not
// enrolled any more. What is being done to a header then is done to its end.
func (a *Agent) Run(ctx context.Context) error {
	a.heard()
	a.tried()
	for ctx.Err() == nil {
		wait, err := a.round(ctx)
		if errors.Is(err, fs.ErrNotExist) {
			a.Log("this machine is not enrolled any more: nothing is left to wait for")
			return nil
		}
		if err != nil {
			wait = a.missed(err)
		}
		if a.Clock.Sleep(ctx, wait) != nil {
			break
		}
	}
	a.Log("told to end: no step is under way")
	return nil
}

// round waits once, carries out what is ordered, and returns when to wait next.
func (a *Agent) round(ctx context.Context) (time.Duration, error) {
	known, err := a.Orders()
	if err != nil {
		return 0, err
	}
	a.server %= len(known.Servers)
	to := known.Servers[a.server]
	waiting, cancel := context.WithTimeout(ctx, ordersTimeout)
	defer cancel()
	answer, err := to.Orders(waiting, known.Machine)
	if ctx.Err() != nil {
		return 0, nil //nolint:nilerr // told to end while it waited
	}
	if err != nil {
		a.server++
		return 0, answered(to.Host, err)
	}
	if a.said != "" {
		a.Log(printable(to.Host + " answers again"))
	}
	a.heard()
	a.compare(known, answer.ServiceKeys)
	switch {
	case answer.Ordered:
		return a.carryOut(ctx, known), nil
	case answer.Again > 0:
		return a.jittered(min(time.Duration(answer.Again)*time.Second, maxAgain)), nil
	default:
		return a.between(), nil
	}
}

// compare looks whether the service has other keys than are pinned. What it was told
// is a hint, which nobody signed: whoever takes the keys over asks for that. One hint
// is passed on once, and another one not at once.
func (a *Agent) compare(known *Orders, told [][]byte) {
	keys, err := exchange.Fingerprints(told)
	if err != nil || len(keys) == 0 || slices.Equal(keys, known.Pins) || slices.Equal(keys, a.told) || a.Clock.Now().Before(a.tell) {
		return
	}
	a.told, a.tell = keys, a.Clock.Now().Add(betweenHints)
	a.Log("the service wants other service keys pinned")
	if err := known.Repin(); err != nil {
		a.Log(printable("having them taken over: " + err.Error()))
	}
}

func (a *Agent) heard() {
	a.said, a.silent = "", &pace{silent: firstWait, refused: firstRefusal, longest: longestSilence, random: a.Random}
}

func (a *Agent) tried() {
	a.vain = &pace{silent: firstVain, refused: firstVain, longest: longestVain, random: a.Random}
}

// missed returns how long to wait where nobody can be waited at. The log has a
// line when that begins, and when its reason changes.
func (a *Agent) missed(err error) time.Duration {
	failure := asFailure(err)
	if reason := fmt.Sprint(failure.Code); a.said != reason {
		a.said = reason
		a.Log(printable("waiting for orders: " + failure.Error() + "; trying again"))
	}
	return a.silent.next(failure)
}

func (a *Agent) between() time.Duration {
	return betweenWaits/2 + time.Duration(a.Random()*float64(betweenWaits/2))
}

// jittered is never less than what was asked for.
func (a *Agent) jittered(wait time.Duration) time.Duration {
	return wait + time.Duration(a.Random()*float64(wait/4))
}

// carryOut has every volume rekeyed that is to be, one after the other, and
// returns when to wait next.
func (a *Agent) carryOut(ctx context.Context, known *Orders) time.Duration {
	a.Log("the service has orders for this machine")
	done, err := a.carryAll(ctx, known)
	switch {
	case ctx.Err() != nil:
		return 0
	case err == nil && done > 0:
		a.tried()
		return a.between()
	case err == nil:
		a.Log("nothing is ordered of the volumes of this machine that are there")
	}
	wait := a.vain.next(&Failure{})
	if err != nil {
		a.Log(fmt.Sprintf("trying again in %d s", int(wait/time.Second)))
	}
	return wait
}

// carryAll returns how many orders were carried out, and the last failure; each is
// logged.
func (a *Agent) carryAll(ctx context.Context, known *Orders) (done int, last error) {
	carry, end, err := known.Begin(ctx, a.server)
	if err != nil {
		a.Log(printable("carrying out what is ordered: " + err.Error()))
		return 0, err
	}
	defer end()
	for _, c := range known.Volumes {
		if ctx.Err() != nil {
			return done, last
		}
		ordered, err := a.carryOne(ctx, c, carry)
		switch {
		case err != nil && ctx.Err() == nil:
			a.Log(printable(fmt.Sprintf("carrying out what is ordered of %s: %v", c.Name, err)))
			last = err
		case err == nil && ordered:
			done++
		}
	}
	return done, last
}

func (a *Agent) carryOne(ctx context.Context, c VolumeConfig, carry func(context.Context, Volume) (bool, error)) (bool, error) {
	v, err := findVolume(c)
	if err != nil {
		return false, err
	}
	defer v.Device.Close()
	if v.ID == "" {
		return false, nil // not enrolled
	}
	return carry(ctx, v)
}

// From puts the one at an index first.
func From[S any](list []S, index int) []S {
	index %= len(list)
	return slices.Concat(list[index:], list[:index])
}
