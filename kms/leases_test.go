package kms_test

import (
	"context"
	"crypto/rand"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/root"
	"keywright.dev/kms/root/file"
	"keywright.dev/kms/secret"
	"keywright.dev/kms/store/sqlite"
)

// switched is a root that can be taken away, and counts what it is asked.
type switched struct {
	root.Root
	down, hangs, refuses atomic.Bool
	calls                atomic.Int64
}

func newSwitched(t *testing.T) *switched {
	t.Helper()
	path := filepath.Join(t.TempDir(), "root.key")
	require.NoError(t, file.Create(path, rand.Reader))
	r, err := file.Open(path)
	require.NoError(t, err)
	return &switched{Root: r}
}

func (s *switched) ask(ctx context.Context) error {
	s.calls.Add(1)
	if s.hangs.Load() {
		<-ctx.Done()
		return root.ErrUnavailable
	}
	if s.down.Load() {
		return root.ErrUnavailable
	}
	if s.refuses.Load() {
		return root.ErrRefused
	}
	return nil
}

func (s *switched) Wrap(ctx context.Context, key secret.Bytes, c []byte) (root.Wrapped, error) {
	if err := s.ask(ctx); err != nil {
		return root.Wrapped{}, err
	}
	return s.Root.Wrap(ctx, key, c)
}

func (s *switched) Unwrap(ctx context.Context, wrapped, c []byte) (secret.Bytes, error) {
	if err := s.ask(ctx); err != nil {
		return secret.Bytes{}, err
	}
	return s.Root.Unwrap(ctx, wrapped, c)
}

// versions is how many keyring versions a new installation has.
const versions = 2

// rooted returns a fixture whose keyrings are wrapped by switched roots.
func rooted(t *testing.T, roots ...*switched) *fixture {
	t.Helper()
	list := make([]root.Root, 0, len(roots))
	for _, r := range roots {
		list = append(list, r)
	}
	f := newFixtureOn(t, list...)
	for _, r := range roots {
		r.calls.Store(0)
	}
	return f
}

func TestBootsGoOnUntilTheLeaseEnds(t *testing.T) {
	r := newSwitched(t)
	f := rooted(t, r)
	m := f.active("web-17")
	r.down.Store(true)
	f.clock.Advance(kms.DefaultLease - time.Minute)
	require.ErrorIs(t, f.keys.Upkeep(t.Context()), kms.ErrRoots)
	f.unlock(m)
	f.clock.Advance(time.Minute)
	m.Boot()
	_, err := m.Unlock(t.Context(), f.guest())
	require.ErrorIs(t, err, kms.ErrRoots)
	assert.Equal(t, kms.ActionRelease, f.lastEntry(m.TPM.Machine()).Action)
	for _, l := range f.keys.Leases() {
		assert.Zero(t, l.Left)
		assert.ErrorIs(t, l.Err, root.ErrUnavailable)
	}

	r.down.Store(false)
	f.clock.Advance(time.Minute)
	f.unlock(m)
}

// A root that knows us no more answers a boot with a code too, and is asked again.
func TestRefusingRootClosesWhenTheLeaseEnds(t *testing.T) {
	r := newSwitched(t)
	f := rooted(t, r)
	m := f.active("web-17")
	r.refuses.Store(true)
	f.clock.Advance(kms.DefaultLease)
	m.Boot()
	_, err := m.Unlock(t.Context(), f.guest())
	require.ErrorIs(t, err, kms.ErrRootsRefuse)
	require.NotErrorIs(t, err, kms.ErrUnavailable)
	_, err = f.CreateKeyring(t.Context(), operator(), "prod")
	require.ErrorIs(t, err, kms.ErrRootsRefuse)

	r.refuses.Store(false)
	f.clock.Advance(time.Minute)
	f.unlock(m)
}

// While a root answers, leases are renewed when they are half over, and nothing
// else asks it.
func TestRootsAreAskedOncePerLease(t *testing.T) {
	r := newSwitched(t)
	f := rooted(t, r)
	m := f.active("web-17")
	for hour := range 48 {
		require.NoError(t, f.keys.Upkeep(t.Context()))
		if hour%10 == 0 {
			f.unlock(m)
		}
		f.clock.Advance(time.Hour)
	}
	assert.EqualValues(t, 3*versions, r.calls.Load(), "at 12, 24 and 36 hours")
}

// A clock that somebody sets back prolongs no lease.
func TestLeaseKnowsNoWallClock(t *testing.T) {
	r := newSwitched(t)
	f := rooted(t, r)
	m := f.active("web-17")
	r.down.Store(true)
	f.slept.Store(int64(kms.DefaultLease))
	m.Boot()
	_, err := m.Unlock(t.Context(), f.guest())
	require.ErrorIs(t, err, kms.ErrRoots)
}

// Boots that find a lease ended share one opening.
func TestOpeningsAreShared(t *testing.T) {
	r := newSwitched(t)
	f := rooted(t, r)
	f.clock.Advance(kms.DefaultLease)
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() { assert.NoError(t, f.keys.Open(t.Context(), kms.DefaultKeyring, 1)) })
	}
	group.Wait()
	assert.EqualValues(t, 1, r.calls.Load())
}

// Roots that are away are not asked by each boot that waits for them.
func TestFailedOpeningIsShared(t *testing.T) {
	r := newSwitched(t)
	f := rooted(t, r)
	r.down.Store(true)
	f.clock.Advance(kms.DefaultLease)
	for range 50 {
		require.ErrorIs(t, f.keys.Open(t.Context(), kms.DefaultKeyring, 1), kms.ErrRoots)
	}
	assert.EqualValues(t, 1, r.calls.Load())
}

func TestAnyRootOpens(t *testing.T) {
	first, second := newSwitched(t), newSwitched(t)
	f := rooted(t, first, second)
	for name, fault := range map[string]*atomic.Bool{"down": &first.down, "hanging": &first.hangs} {
		fault.Store(true)
		f.clock.Advance(kms.DefaultLease)
		require.NoError(t, f.keys.Open(t.Context(), kms.DefaultKeyring, 1), name)
		fault.Store(false)
	}
	assert.Equal(t, second.URI(), f.keys.Leases()[0].Root)
}

func TestStartWaitsForARoot(t *testing.T) {
	r := newSwitched(t)
	f := rooted(t, r)
	r.down.Store(true)
	_, err := kms.OpenKeys(t.Context(), f.keysConfig(r))
	require.ErrorIs(t, err, kms.ErrRoots)
	require.ErrorContains(t, err, "keyring/system@1")
	_, err = kms.OpenKeys(t.Context(), f.keysConfig(newSwitched(t)))
	require.NotErrorIs(t, err, kms.ErrRoots, "it never will")
	require.ErrorIs(t, err, kms.ErrRootsRefuse)
	require.ErrorContains(t, err, r.URI(), "it says which root is wanted")
}

// Upkeep reads the keyrings' rows once, and again where it changed them.
func TestUpkeepReadsKeyringsOnce(t *testing.T) {
	f, ctx := newFixture(t), t.Context()
	counting := &countingKeyrings{Store: f.store}
	f.keys.Store = counting
	require.NoError(t, f.TendKeyrings(ctx))
	assert.Equal(t, 1, counting.reads)

	f.rotate("default")
	f.disable("default@1")
	_, err := f.ScheduleDestroy(ctx, operator(), f.version("default@1"), kms.MinDestroyWait)
	require.NoError(t, err)
	f.clock.Advance(kms.MinDestroyWait)
	counting.reads = 0
	require.NoError(t, f.TendKeyrings(ctx))
	assert.Equal(t, 2, counting.reads)
	assert.Equal(t, kms.KeyringDestroyed, f.version("default@1").Status)
}

// countingKeyrings counts how often all keyring versions are read.
type countingKeyrings struct {
	*sqlite.Store
	reads int
}

func (c *countingKeyrings) Keyrings(ctx context.Context) ([]kms.KeyringVersion, error) {
	c.reads++
	return c.Store.Keyrings(ctx)
}
