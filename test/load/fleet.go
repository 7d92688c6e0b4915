package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"keywright.dev/kms/api"
	"keywright.dev/kms/secret"
	"keywright.dev/test/sim"
)

const (
	// volumes is how many volumes each machine has.
	volumes = 2
	// firstPause and lastPause are between which a guest that was not answered
	// waits for its next try.
	firstPause = 20 * time.Millisecond
	lastPause  = 500 * time.Millisecond
)

// Fleet is machines that use one service. Different machines may be used
// concurrently.
type Fleet struct {
	Service  *Service
	Machines []*Machine
	// Patience is how long a machine keeps trying while the service does not
	// answer; zero takes the first failure for an answer.
	Patience time.Duration
	// Retries counts the tries that got no answer.
	Retries atomic.Int64
}

// Machine is a simulated machine and what it received.
type Machine struct {
	*sim.Machine
	// Source is its address.
	Source net.IP
	// Keys are those of its enrolment.
	Keys []secret.Bytes
	// Receipts are the signed audit entries of everything it received.
	Receipts [][]byte
}

// NewFleet makes n machines that boot log, with keys made in parallel.
func NewFleet(ctx context.Context, s *Service, log *sim.Log, n int) (*Fleet, error) {
	f := &Fleet{Service: s, Machines: make([]*Machine, n)}
	return f, f.each(ctx, n, runtime.NumCPU(), func(_ context.Context, i int) error {
		m, err := sim.NewMachine(fmt.Sprintf("vm-%05d", i), log, s.Pin, volumes)
		f.Machines[i] = &Machine{Machine: m, Source: sourceOf(i)}
		return err
	})
}

// sourceOf returns an address of loopback that no other machine has.
func sourceOf(i int) net.IP { return net.IPv4(127, byte(1+i/62500), byte(1+i/250%250), byte(1+i%250)) }

// Each does work for every machine, with so many at once. Before each it calls
// before, if that is not nil, with how many have begun.
func (f *Fleet) Each(ctx context.Context, atOnce int, before func(begun int64), work func(context.Context, *Machine) error) error {
	var begun atomic.Int64
	return f.each(ctx, len(f.Machines), atOnce, func(ctx context.Context, i int) error {
		if before != nil {
			before(begun.Add(1))
		}
		m := f.Machines[i]
		if err := work(ctx, m); err != nil {
			return fmt.Errorf("machine %s: %w", m.Name, err)
		}
		return nil
	})
}

func (f *Fleet) each(ctx context.Context, n, atOnce int, work func(context.Context, int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i := range n {
		group.Go(func() error { return work(ctx, i) })
	}
	return group.Wait()
}

// Enroll enrols a machine, from its keys to the commit.
func (f *Fleet) Enroll(ctx context.Context, m *Machine) error {
	return f.connected(m, func(g *api.GuestClient) error {
		if err := f.retry(ctx, func() error { return m.Complete(ctx, g) }); err != nil {
			return err
		}
		m.Receipts = append(m.Receipts, m.Receipt)
		for _, v := range m.Volumes {
			m.Keys = append(m.Keys, v.Key.Clone())
		}
		return f.retry(ctx, func() error { _, err := m.Commit(ctx, g); return err })
	})
}

// Approve approves a machine as an operator.
func (f *Fleet) Approve(ctx context.Context, operator *api.OperatorClient, m *Machine) error {
	id := m.TPM.Machine()
	return f.retry(ctx, func() error {
		_, err := operator.ApproveMachine(ctx, id, api.ApproveMachine{EKHash: id})
		var refused *api.Error
		if errors.As(err, &refused) && refused.Code == api.CodeConflict && f.Patience > 0 {
			return f.approved(ctx, operator, id, err)
		}
		return err
	})
}

// approved returns nil where a machine is active: the answer to its approval
// was lost. Else it returns err.
func (f *Fleet) approved(ctx context.Context, operator *api.OperatorClient, id string, err error) error {
	m, found := operator.Machine(ctx, id)
	if found != nil || m.Status != "active" {
		return errors.Join(err, found)
	}
	return nil
}

// Boot restarts a machine, which asks for its keys over a connection of its own
// and compares them with those of its enrolment.
func (f *Fleet) Boot(ctx context.Context, m *Machine) error {
	m.Machine.Boot()
	return f.connected(m, func(g *api.GuestClient) error {
		err := f.retry(ctx, func() error {
			_, err := m.Unlock(ctx, g)
			return err
		})
		if err != nil {
			return err
		}
		m.Receipts = append(m.Receipts, m.Receipt)
		return m.checkKeys()
	})
}

func (m *Machine) checkKeys() error {
	for i, v := range m.Volumes {
		if !v.Key.Equal(m.Keys[i]) {
			return fmt.Errorf("the key of volume %s is not the one of its enrolment", v.ID)
		}
		v.Key.Wipe()
	}
	return nil
}

// connected gives work a client that connects from the machine's address.
func (f *Fleet) connected(m *Machine, work func(*api.GuestClient) error) error {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: m.Source}, Timeout: 10 * time.Second}
	g, err := api.NewGuestClient(f.Service.URL, dialer.DialContext)
	if err != nil {
		return err
	}
	defer g.Close()
	return work(g)
}

// retry tries until there is an answer or patience ends. What the service
// refuses is an answer; that it is busy, or gone, is none.
func (f *Fleet) retry(ctx context.Context, try func() error) error {
	deadline := time.Now().Add(f.Patience)
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := try()
		if err == nil || !unanswered(err) || time.Now().After(deadline) {
			return err
		}
		f.Retries.Add(1)
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(pause):
		}
	}
}

func unanswered(err error) bool {
	var answer *api.Error
	return !errors.Is(err, ErrDied) && (!errors.As(err, &answer) || answer.RetryAfter > 0)
}

// Keeper runs a service that is killed now and then.
type Keeper struct {
	Service *Service
	// KillAt are the steps before which the service is killed.
	KillAt []int64

	mu     sync.Mutex
	killed int
	err    error
}

// Before is for [Fleet.Each]: it kills the service and starts it again, while
// the other machines go on.
func (k *Keeper) Before(ctx context.Context) func(int64) {
	return func(step int64) {
		for _, at := range k.KillAt {
			if at == step {
				k.Restart(ctx)
			}
		}
	}
}

// Restart kills the service and starts it again.
func (k *Keeper) Restart(ctx context.Context) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.Service.Kill()
	k.killed++
	k.err = errors.Join(k.err, k.Service.Start(ctx))
}

// Killed returns how often the service was killed, and what went wrong when it
// was started again.
func (k *Keeper) Killed() (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.killed, k.err
}
