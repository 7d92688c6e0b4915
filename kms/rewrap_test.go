package kms_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/audit"
	"keywright.dev/kms/exchange"
	"keywright.dev/test/sim"
)

func (r *countingRoot) calls() int64 { return r.wraps.Load() + r.unwraps.Load() }

func noPause(context.Context) (bool, error) { return false, nil }

func (f *fixture) version(ref string) *kms.KeyringVersion {
	f.t.Helper()
	v, err := f.FindKeyringVersion(f.t.Context(), ref)
	require.NoError(f.t, err)
	return v
}

// rewrapAll rewraps page by page to the end and returns what was done.
func (f *fixture) rewrapAll(name string, limit int) (total kms.Rewrapped) {
	f.t.Helper()
	for after := ""; ; {
		r, err := f.RewrapPage(f.t.Context(), operator(), name, after, limit, noPause)
		require.NoError(f.t, err)
		total.Done, total.Changed = total.Done+r.Done, total.Changed+r.Changed
		total.Failed, total.Remaining, total.Current = append(total.Failed, r.Failed...), r.Remaining, r.Current
		if after = r.Next; after == "" {
			return total
		}
	}
}

func TestRewrapAsksNoRoot(t *testing.T) {
	f := newFixture(t)
	for n := range 5 {
		f.active(fmt.Sprintf("web-%d", n))
	}
	f.rotate("default")
	before := f.root.calls()
	r := f.rewrapAll("default", 7)
	assert.Equal(t, 20, r.Done)
	assert.Zero(t, r.Remaining)
	assert.Equal(t, before, f.root.calls())
	assert.Zero(t, f.rewrapAll("default", 7).Done, "only what is still on another version")
}

// A rewrap after the leases ended asks for each version once, and says so.
func TestRewrapCountsRootCalls(t *testing.T) {
	f, ctx := newFixture(t), t.Context()
	f.active("web-1")
	f.rotate("default")
	f.clock.Advance(kms.DefaultLease)
	before := f.root.calls()
	var counted int
	for after := ""; ; {
		r, err := f.RewrapPage(ctx, operator(), "default", after, 1, noPause)
		require.NoError(t, err)
		counted += r.RootCalls
		if after = r.Next; after == "" {
			break
		}
	}
	assert.EqualValues(t, 2, f.root.calls()-before)
	assert.Equal(t, 2, counted)
}

func TestRewrapSkipsPoison(t *testing.T) {
	f, ctx := newFixture(t), t.Context()
	good, bad := f.active("web-1"), f.active("web-2")
	poison := f.secretsOf(bad)[0]
	text := []byte(poison.Wrapped)
	text[len(text)/2] ^= 1
	poison.Wrapped = string(text)
	require.NoError(t, f.store.Transact(ctx, kms.Key{}, func(kms.State) (kms.Outcome, error) {
		return kms.Outcome{Secrets: []kms.Secret{poison}}, nil
	}))
	f.rotate("default")
	for range 2 {
		r := f.rewrapAll("default", 2)
		require.Len(t, r.Failed, 1)
		assert.Equal(t, "volume/"+poison.Volume, r.Failed[0].Object)
		assert.Equal(t, "default@1", r.Failed[0].Keyring)
		assert.Equal(t, int64(1), r.Remaining)
	}
	f.unlock(good)
	entry := f.latest(kms.ActionRewrapKeyring)
	assert.Equal(t, audit.Failed, entry.Outcome)
	assert.Contains(t, entry.Facts, audit.Fact{Name: "does_not_open", Was: "default@1", Is: "volume/" + poison.Volume + ", " + poison.Purpose})
	page, next, err := f.DependentsOn(ctx, f.version("default@1"), "", 10)
	require.NoError(t, err)
	assert.Empty(t, next)
	require.Len(t, page, 1)
	assert.Equal(t, bad.TPM.Machine(), page[0].Machine)
	f.disable("default@1")
	_, err = f.ScheduleDestroy(ctx, operator(), f.version("default@1"), 0)
	var inUse *kms.InUseError
	require.ErrorAs(t, err, &inUse, "what nobody can open is not dropped either: somebody has to decide that")
}

// Boots get their keys at every point of rotations and rewraps.
func TestBootsGoOnDuringARewrap(t *testing.T) {
	f, ctx := newFixture(t), t.Context()
	var machines []*sim.Machine
	for n := range 4 {
		machines = append(machines, f.active(fmt.Sprintf("web-%d", n)))
	}
	var booted atomic.Int64
	var boots sync.WaitGroup
	for _, m := range machines {
		boots.Go(func() {
			for range 15 {
				m.Boot()
				_, err := m.Unlock(ctx, f.guest())
				assert.NoError(t, err)
				booted.Add(1)
			}
		})
	}
	for booted.Load() < 60 && !t.Failed() {
		f.rotate(kms.DefaultKeyring)
		assert.Empty(t, f.rewrapAll(kms.DefaultKeyring, 5).Failed)
	}
	boots.Wait()
}

// A row that changes between its reading and its writing stays what it became.
func TestRewrapIsCompareAndSet(t *testing.T) {
	f, ctx := newFixture(t), t.Context()
	m := f.active("web-17")
	f.rotate("default")
	changed := f.secretsOf(m)[0]
	changed.Wrapped += "x"
	once := sync.OnceValue(func() error {
		return f.store.Transact(ctx, kms.Key{}, func(kms.State) (kms.Outcome, error) {
			return kms.Outcome{Secrets: []kms.Secret{changed}}, nil
		})
	})
	f.Store = &beforeTransact{Store: f.Store, do: once}
	r, err := f.RewrapPage(ctx, operator(), "default", "", 100, noPause)
	require.NoError(t, err)
	assert.Equal(t, []int{3, 1}, []int{r.Done, r.Changed})
	assert.Equal(t, changed, f.secretsOf(m)[0])
}

// beforeTransact does something before each transaction.
type beforeTransact struct {
	kms.Store
	do func() error
}

func (b *beforeTransact) Transact(ctx context.Context, key kms.Key, decide func(kms.State) (kms.Outcome, error)) error {
	if err := b.do(); err != nil {
		return err
	}
	return b.Store.Transact(ctx, key, decide)
}

// TestAttack28RewrapBindsToNobodyElse swaps the AK of a machine's row for that of
// another: its secrets do not open for it, and are not sealed for it either.
func TestAttack28RewrapBindsToNobodyElse(t *testing.T) {
	f, ctx := newFixture(t), t.Context()
	victim, thief := f.active("web-1"), f.machine("web-2")
	row, err := f.FindMachine(ctx, "web-1")
	require.NoError(t, err)
	ak, err := exchange.CheckAK(thief.Keys().AK)
	require.NoError(t, err)
	row.AK, row.AKName = thief.Keys().AK, ak.Name
	require.NoError(t, f.store.Transact(ctx, kms.Key{Machine: row.ID}, func(kms.State) (kms.Outcome, error) {
		return kms.Outcome{Machine: row}, nil
	}))
	before := f.secretsOf(victim)
	f.rotate("default")
	r := f.rewrapAll("default", 100)
	assert.Len(t, r.Failed, 4)
	assert.Zero(t, r.Done)
	assert.Equal(t, before, f.secretsOf(victim))
}

func FuzzPosition(f *testing.F) {
	f.Add("3/0123456789abcdef/luks-keyslot/1")
	f.Add("")
	f.Add("0///0")
	f.Add("03/a/b/1")
	f.Add("1/a/b/c/1")
	f.Fuzz(func(t *testing.T, text string) {
		if again, err := kms.ReadPosition(text); err == nil && text != "" {
			assert.Equal(t, text, again)
		}
	})
}
