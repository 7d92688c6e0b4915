package kms_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/root"
	"keywright.dev/kms/secret"
)

// versioned is a root whose key gets new versions.
type versioned struct {
	*switched
	version string
}

func (v *versioned) Version(context.Context) (string, error) { return v.version, nil }

func (v *versioned) Wrap(ctx context.Context, key secret.Bytes, c []byte) (root.Wrapped, error) {
	w, err := v.switched.Wrap(ctx, key, c)
	w.Version = v.version
	return w, err
}

// restart opens the service anew, with other roots.
func (f *fixture) restart(roots ...root.Root) {
	f.t.Helper()
	f.keys.Wipe()
	keys, err := kms.OpenKeys(f.t.Context(), f.keysConfig(roots...))
	require.NoError(f.t, err)
	f.keys = keys
	f.Service = f.service()
}

func (f *fixture) rewrapRoots() []kms.RootStep {
	f.t.Helper()
	done, failures, err := f.RewrapRoots(f.t.Context(), operator())
	require.NoError(f.t, err)
	require.Empty(f.t, failures)
	return done
}

// A root is added, and the first removed: nothing but wrappers changes, and
// machines boot all the while.
func TestRootIsReplaced(t *testing.T) {
	first, second := newSwitched(t), newSwitched(t)
	f := newFixtureOn(t, first)
	m := f.active("web-17")
	m.ServiceKey = f.ServiceKey()
	f.restart(first, second)
	m.ServiceKey = f.ServiceKey()
	secrets, err := f.store.Secrets(t.Context(), m.Volumes[0].ID)
	require.NoError(t, err)
	_, err = f.RemoveRoot(t.Context(), operator(), first.URI())
	require.ErrorContains(t, err, "take it out of server.roots")

	second.calls.Store(0)
	assert.Len(t, f.rewrapRoots(), versions)
	assert.EqualValues(t, 2*versions, second.calls.Load(), "each is wrapped and read back")
	assert.Empty(t, f.rewrapRoots(), "again there is nothing to do")
	first.down.Store(true)
	f.restart(second)
	m.ServiceKey = f.ServiceKey()
	f.unlock(m)

	n, err := f.RemoveRoot(t.Context(), operator(), first.URI())
	require.NoError(t, err)
	assert.Equal(t, versions, n)
	states, err := f.Roots(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []kms.RootState{{URI: second.URI(), Configured: true, Wraps: versions, Versions: versions}}, states)
	_, err = f.RemoveRoot(t.Context(), operator(), first.URI())
	require.ErrorIs(t, err, kms.ErrNotFound)
	after, err := f.store.Secrets(t.Context(), m.Volumes[0].ID)
	require.NoError(t, err)
	assert.Equal(t, secrets, after)
}

// What only the root to be removed opens, nobody may lose.
func TestRootIsNotRemovedBeforeAnotherOpens(t *testing.T) {
	first, second := newSwitched(t), newSwitched(t)
	f := newFixtureOn(t, first)
	f.restart(first, second)
	f.rewrapRoots()
	f.restart(second)
	second.down.Store(true)
	_, err := f.RemoveRoot(t.Context(), operator(), first.URI())
	require.ErrorIs(t, err, kms.ErrRoots)
	second.down.Store(false)
	dry := operator()
	dry.DryRun = true
	_, err = f.RemoveRoot(t.Context(), dry, first.URI())
	require.NoError(t, err)
	states, err := f.Roots(t.Context())
	require.NoError(t, err)
	require.Len(t, states, 2)
	assert.Equal(t, versions, states[1].Wraps, "a dry run removes nothing")
}

func TestRotatedRootIsRewrapped(t *testing.T) {
	r := &versioned{newSwitched(t), "1"}
	f := newFixtureOn(t, r)
	assert.Empty(t, f.rewrapRoots())
	r.version = "2"
	steps, failures, err := f.PlanRoots(t.Context())
	require.NoError(t, err)
	require.Empty(t, failures)
	assert.Equal(t, kms.RootStep{Keyring: "default", Version: 1, Root: r.URI(), Was: "1"}, steps[0])
	assert.Equal(t, steps, f.rewrapRoots())
	rows, err := f.store.Keyrings(t.Context())
	require.NoError(t, err)
	for _, v := range rows {
		assert.Equal(t, "2", v.Wrappers[0].Version)
	}
	f.restart(r)
}

// One root's failure is named and stops nobody else's wrappers.
func TestRewrapOfRootsGoesOnAfterAFailure(t *testing.T) {
	first, second, third := newSwitched(t), newSwitched(t), newSwitched(t)
	f := newFixtureOn(t, first)
	f.restart(first, second, third)
	second.down.Store(true)
	done, failures, err := f.RewrapRoots(t.Context(), operator())
	require.NoError(t, err)
	assert.Len(t, done, versions)
	require.Len(t, failures, versions)
	assert.Equal(t, second.URI(), failures[0].Root)
	require.ErrorIs(t, failures[0].Err, root.ErrUnavailable)
	require.ErrorIs(t, failures[1].Err, root.ErrUnavailable)
	assert.EqualValues(t, 1, second.calls.Load(), "one that is away is not waited for again and again")
	second.down.Store(false)
	assert.Len(t, f.rewrapRoots(), versions, "a later run does the rest")
}

// A root that wraps to something that does not open is noticed before its wrapper
// is kept.
func TestWrapperIsReadBack(t *testing.T) {
	first := newSwitched(t)
	f := newFixtureOn(t, first)
	bad := &careless{newSwitched(t)}
	f.restart(first, bad)
	done, failures, err := f.RewrapRoots(t.Context(), operator())
	require.NoError(t, err)
	assert.Empty(t, done)
	require.Len(t, failures, versions)
	require.ErrorContains(t, failures[0].Err, "another key")
	rows, err := f.store.Keyrings(t.Context())
	require.NoError(t, err)
	assert.Len(t, rows[0].Wrappers, 1)
}

// careless opens everything to a key of zeros.
type careless struct{ *switched }

func (c *careless) Unwrap(context.Context, []byte, []byte) (secret.Bytes, error) {
	return secret.New(make([]byte, root.KeySize)), nil
}

func TestDroppedLeases(t *testing.T) {
	r := newSwitched(t)
	f := rooted(t, r)
	m := f.active("web-17")
	r.down.Store(true)
	require.NoError(t, f.DropLeases(t.Context(), operator(), "the host was seized"))
	_, err := m.Unlock(t.Context(), f.guest())
	require.ErrorIs(t, err, kms.ErrRoots)
	r.down.Store(false)
	f.clock.Advance(time.Minute)
	f.unlock(m)
}

// Another replica learns of it by the store: at its next decision, or its upkeep.
func TestLeasesAreDroppedOnEveryReplica(t *testing.T) {
	r := newSwitched(t)
	f := rooted(t, r)
	m := f.active("web-17")
	require.NoError(t, f.store.Transact(t.Context(), kms.Key{}, func(kms.State) (kms.Outcome, error) {
		return kms.Outcome{DropLeases: true}, nil
	}))
	r.down.Store(true)
	_, err := m.Unlock(t.Context(), f.guest())
	require.ErrorIs(t, err, kms.ErrRoots)
	for _, l := range f.keys.Leases() {
		assert.Zero(t, l.Left)
	}
}

// people is a root that wraps, and opens with people alone.
type people struct{ *switched }

func (people) Offline() string { return "3 of 5 custodians" }

func (people) Verify([]byte, secret.Bytes, []byte) error { return nil }

func (people) Unwrap(context.Context, []byte, []byte) (secret.Bytes, error) {
	return secret.Bytes{}, errors.Join(root.ErrRefused, errors.New("it needs people"))
}

func TestColdStartIsSimulated(t *testing.T) {
	first, offline := newSwitched(t), people{newSwitched(t)}
	f := newFixtureOn(t, first)
	list, err := f.ColdStart(t.Context())
	require.NoError(t, err)
	require.Len(t, list, versions)
	assert.Equal(t, kms.ColdStart{Keyring: "default", Version: 1, Opens: []string{first.URI()}}, list[0])
	f.restart(first, offline)
	assert.Len(t, f.rewrapRoots(), versions)
	list, err = f.ColdStart(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []string{offline.URI()}, list[0].People)

	_, err = kms.OpenKeys(t.Context(), f.keysConfig(offline))
	require.ErrorContains(t, err, "no configured root")
}

// unbounded is a root that finds out whether each of its calls must end.
type unbounded struct {
	*switched
	t *testing.T
}

func (u unbounded) bound(ctx context.Context, call string) {
	_, bounded := ctx.Deadline()
	assert.True(u.t, bounded, "%s waits for ever for a root that hangs", call)
}

func (u unbounded) Version(ctx context.Context) (string, error) {
	u.bound(ctx, "Version")
	return u.switched.Version(ctx)
}

func (u unbounded) Wrap(ctx context.Context, key secret.Bytes, c []byte) (root.Wrapped, error) {
	u.bound(ctx, "Wrap")
	return u.switched.Wrap(ctx, key, c)
}

func (u unbounded) Unwrap(ctx context.Context, wrapped, c []byte) (secret.Bytes, error) {
	u.bound(ctx, "Unwrap")
	return u.switched.Unwrap(ctx, wrapped, c)
}

func TestEachCallOfARootIsBounded(t *testing.T) {
	first, second := unbounded{newSwitched(t), t}, unbounded{newSwitched(t), t}
	f := newFixtureOn(t, first)
	_, err := f.CreateKeyring(t.Context(), operator(), "prod")
	require.NoError(t, err)
	f.restart(first, second)
	assert.Len(t, f.rewrapRoots(), versions+1)
	_, err = f.Roots(t.Context())
	require.NoError(t, err)
	f.restart(second)
	_, err = f.RemoveRoot(t.Context(), operator(), first.URI())
	require.NoError(t, err)
}

func TestRewrapOfRootsNamesOneThatIsNotThere(t *testing.T) {
	f := newFixtureOn(t, newSwitched(t))
	_, _, err := f.RewrapRoots(t.Context(), operator(), "file:0123")
	var missing *kms.NotFoundError
	require.ErrorAs(t, err, &missing)
	assert.Equal(t, "root", missing.Kind)
}

// What one root answers is known although another hangs.
func TestRootsAreListedBesideOneThatHangs(t *testing.T) {
	first, second := newSwitched(t), newSwitched(t)
	f := rooted(t, first, second)
	first.hangs.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	states, err := f.Roots(ctx)
	require.NoError(t, err)
	require.ErrorIs(t, states[0].Err, root.ErrUnavailable)
	assert.NoError(t, states[1].Err)
}
