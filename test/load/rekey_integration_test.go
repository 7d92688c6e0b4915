//go:build integration

package load_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/api"
	"keywright.dev/kms/audit"
	"keywright.dev/test/load"
)

// guests is how many machines are rekeyed.
const guests = 1000

// TestRekeyOfAFleet has a volume of every machine rekeyed while the service is killed:
// of the machines 5 % never answer, and 5 % die midway.
func TestRekeyOfAFleet(t *testing.T) {
	r := newRekeying(t, sizeOf(guests))
	r.round(6)
	r.check(r.head())
	assert.NotZero(t, r.fleet.Retries.Load(), "the kills hit nobody")
}

// fate is what becomes of a machine.
type fate struct {
	silent bool
	// diesAt is empty for one that lives; returns tells that it boots again.
	diesAt  load.Step
	returns bool
}

// fateOf spreads those that die over all steps.
func fateOf(i int) fate {
	steps, n := load.Steps(), i/20
	switch i % 20 {
	case 0:
		return fate{silent: true}
	case 1:
		return fate{diesAt: steps[n%len(steps)], returns: n%2 == 0}
	default:
		return fate{}
	}
}

// left is the status of the order that a machine leaves; empty where it leaves none.
func (f fate) left() string {
	switch {
	case f.silent:
		return "open"
	case f.diesAt == "" || f.returns:
		return ""
	}
	died := slices.Index(load.Steps(), f.diesAt)
	switch {
	case died < slices.Index(load.Steps(), "report-keyslot: answer"):
		return "open"
	case died < slices.Index(load.Steps(), "report-done: answer"):
		return "committed"
	default:
		return ""
	}
}

// rekeying is a fleet whose volumes are rekeyed.
type rekeying struct {
	*rig
	random *rand.Rand
	fates  map[*load.Machine]fate
	rounds int
}

func newRekeying(t *testing.T, machines int) *rekeying {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := &rekeying{rig: newRig(t, machines), random: rand.New(rand.NewPCG(seed, 0)), fates: make(map[*load.Machine]fate)}
	r.fleet.Patience = patience
	r.enroll(nil)
	r.approve(nil)
	r.boot(nil)
	for i, m := range r.fleet.Machines {
		r.fates[m] = fateOf(i)
	}
	return r
}

// round orders a rekey of every machine's volume and has the machines carry it out, with
// so many kills at random besides one at each step; then the report names those that did
// not, and in the end everybody boots.
func (r *rekeying) round(kills int) {
	r.t.Helper()
	n := len(r.fleet.Machines)
	operator := r.service.Operator()
	defer operator.Close()
	r.rounds++
	r.each("orders", r.kills(1+r.random.IntN(n), 1+r.random.IntN(n)), func(ctx context.Context, m *load.Machine) error {
		// Twice, as two crons do, and who was not answered.
		return errors.Join(r.fleet.Order(ctx, operator, m), r.fleet.Order(ctx, operator, m))
	})
	k := r.killer(kills)
	r.each("rekeys", nil, func(ctx context.Context, m *load.Machine) error { return r.live(ctx, m, k) })
	killed, err := k.keeper.Killed()
	require.NoError(r.t, err)
	require.Equal(r.t, len(load.Steps())+kills, killed)
	r.named(operator)
	r.each("boots after it", r.kills(1+r.random.IntN(n)), r.fleet.Return)
	r.settled(operator)
}

// live does what a machine does in its life.
func (r *rekeying) live(ctx context.Context, m *load.Machine, k *killer) error {
	fate := r.fates[m]
	if fate.silent {
		return nil
	}
	err := r.fleet.Rekey(ctx, m, func(step load.Step) error {
		k.at(ctx, step)
		if step == fate.diesAt {
			return load.ErrDied
		}
		return nil
	})
	switch {
	case !errors.Is(err, load.ErrDied):
		return err
	case fate.returns:
		return r.fleet.Return(ctx, m)
	default:
		return nil
	}
}

// named holds that what is under way is of the machines that did not answer, and of
// all of these.
func (r *rekeying) named(operator *api.OperatorClient) {
	r.t.Helper()
	want, got := make(map[string]string), make(map[string]string)
	for _, m := range r.fleet.Machines {
		if left := r.fates[m].left(); left != "" {
			want[m.TPM.Machine()] = left
		}
	}
	for after, more := "", true; more; more = after != "" {
		page, err := operator.Orders(r.t.Context(), api.ListQuery{After: after})
		require.NoError(r.t, err)
		for _, o := range page.Items {
			got[o.Machine] = o.Status
		}
		after = page.Next
	}
	require.Equal(r.t, want, got)
	r.t.Logf("%d of %d machines are named, for they did not answer", len(got), len(r.fleet.Machines))
}

// settled holds that each order was given once, committed once, and is over.
func (r *rekeying) settled(operator *api.OperatorClient) {
	r.t.Helper()
	page, err := operator.Orders(r.t.Context(), api.ListQuery{})
	require.NoError(r.t, err)
	require.Empty(r.t, page.Items)
	head := r.head()
	ledger, err := load.ReadLedger(r.t.Context(), operator, r.key, []byte(head.Head))
	require.NoError(r.t, err)
	ordered, err := ledger.Count("volume.rekey", func(audit.Entry) bool { return true })
	require.NoError(r.t, err)
	committed, err := ledger.Count("rekey.report", replaces)
	require.NoError(r.t, err)
	for _, m := range r.fleet.Machines {
		volume := "volume/" + m.Volumes[0].ID
		require.Equal(r.t, r.rounds, ordered[volume], "%s was ordered", volume)
		require.Equal(r.t, r.rounds, committed[volume], "%s was committed", volume)
		require.Len(r.t, m.Volumes[0].Own, 1)
		require.EqualValues(r.t, 1+r.rounds, m.Volumes[0].Own[0].Version)
	}
}

// replaces tells whether an entry says that a secret took the place of another.
func replaces(e audit.Entry) bool {
	for _, f := range e.Facts {
		if f.Name == "restore_only" {
			return true
		}
	}
	return false
}

// killer kills the service once at each step of some machine, and at random steps.
type killer struct {
	keeper *load.Keeper

	mu     sync.Mutex
	steps  int
	random map[int]bool
	left   map[load.Step]int
}

func (r *rekeying) killer(kills int) *killer {
	k := &killer{keeper: r.kills(), random: make(map[int]bool), left: make(map[load.Step]int)}
	n := len(r.fleet.Machines) * 4 / 5
	for _, step := range load.Steps() {
		k.left[step] = 1 + r.random.IntN(n)
	}
	for len(k.random) < kills {
		k.random[1+r.random.IntN(n*len(load.Steps()))] = true
	}
	return k
}

func (k *killer) at(ctx context.Context, step load.Step) {
	k.mu.Lock()
	k.steps++
	k.left[step]--
	hits := 0
	if k.random[k.steps] {
		hits++
	}
	if k.left[step] == 0 {
		hits++
	}
	k.mu.Unlock()
	for range hits {
		k.keeper.Restart(ctx)
	}
}
