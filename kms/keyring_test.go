package kms_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/audit"
	"keywright.dev/kms/envelope"
	"keywright.dev/kms/root"
	"keywright.dev/kms/secret"
	"keywright.dev/test/sim"
)

// countingRoot counts what a root is asked, and can be away.
type countingRoot struct {
	root.Root
	wraps, unwraps atomic.Int64
	away           atomic.Bool
}

func (r *countingRoot) Wrap(ctx context.Context, key secret.Bytes, c []byte) (root.Wrapped, error) {
	r.wraps.Add(1)
	if r.away.Load() {
		return root.Wrapped{}, root.ErrUnavailable
	}
	return r.Root.Wrap(ctx, key, c)
}

func (r *countingRoot) Unwrap(ctx context.Context, ciphertext, c []byte) (secret.Bytes, error) {
	r.unwraps.Add(1)
	if r.away.Load() {
		return secret.Bytes{}, root.ErrUnavailable
	}
	return r.Root.Unwrap(ctx, ciphertext, c)
}

func (f *fixture) rotate(name string) *kms.KeyringVersion {
	f.t.Helper()
	v, err := f.RotateKeyring(f.t.Context(), operator(), name, 0)
	require.NoError(f.t, err)
	return v
}

func (f *fixture) disable(ref string) {
	f.t.Helper()
	_, err := f.DisableKeyring(f.t.Context(), operator(), f.version(ref))
	require.NoError(f.t, err)
}

func stateError(t *testing.T, err error, text string) {
	t.Helper()
	var state *kms.StateError
	require.ErrorAs(t, err, &state)
	assert.Contains(t, state.Text, text)
}

func TestKeyringLife(t *testing.T) {
	f, ctx := newFixture(t), t.Context()
	m := f.active("web-17")
	held := envelope.Context{Keyring: kms.DefaultKeyring, Purpose: "test"}
	text, version, err := f.keys.Wrap(held, secret.Copy([]byte("s")))
	require.NoError(t, err)
	held.Version = version
	opens := func() error { _, err := f.keys.Unwrap(held, text); return err }
	two := f.rotate(kms.DefaultKeyring)
	assert.Equal(t, []any{uint32(2), kms.KeyringEnabled, "operator/uid/0"}, []any{two.Version, two.Status, two.ChangedBy})
	f.unlock(m)

	_, err = f.ScheduleDestroy(ctx, operator(), f.version("default@1"), 0)
	stateError(t, err, "only a disabled version can be destroyed")
	f.disable("default@1")
	_, err = f.DisableKeyring(ctx, operator(), f.version("default@2"))
	stateError(t, err, "no other version of the keyring is enabled")
	_, err = f.ScheduleDestroy(ctx, operator(), f.version("default@1"), 0)
	var inUse *kms.InUseError
	require.ErrorAs(t, err, &inUse)
	assert.Equal(t, int64(4), inUse.Count)
	f.unlock(m)

	assert.Equal(t, 4, f.rewrapAll(kms.DefaultKeyring, 3).Done)
	f.unlock(m)
	before := f.keys.HeldKeys()
	v, err := f.ScheduleDestroy(ctx, operator(), f.version("default@1"), kms.MinDestroyWait)
	require.NoError(t, err)
	assert.Equal(t, before-1, f.keys.HeldKeys(), "its key is wiped")
	assert.Equal(t, f.clock.Now().Add(kms.MinDestroyWait), v.DestroyAt)
	require.ErrorIs(t, opens(), kms.ErrNotFound, "unusable at once")
	_, err = f.EnableKeyring(ctx, operator(), f.version("default@1"))
	stateError(t, err, "only a disabled version can be enabled")
	f.clock.Advance(kms.MinDestroyWait - time.Second)
	require.NoError(t, f.TendKeyrings(ctx))
	_, err = f.CancelDestroy(ctx, operator(), f.version("default@1"))
	require.NoError(t, err)
	require.NoError(t, opens())
	_, err = f.CancelDestroy(ctx, operator(), f.version("default@1"))
	stateError(t, err, "there is no destruction to cancel")
	_, err = f.ScheduleDestroy(ctx, operator(), f.version("default@1"), kms.MinDestroyWait)
	require.NoError(t, err)
	f.clock.Advance(kms.MinDestroyWait)
	require.NoError(t, f.TendKeyrings(ctx))
	tomb := f.version("default@1")
	assert.Equal(t, []any{kms.KeyringDestroyed, f.clock.Now(), "operator/uid/0", 0},
		[]any{tomb.Status, tomb.Changed, tomb.ChangedBy, len(tomb.Wrappers)})
	for _, change := range []func(context.Context, kms.Operator, *kms.KeyringVersion) (*kms.KeyringVersion, error){f.EnableKeyring, f.DisableKeyring, f.CancelDestroy} {
		_, err := change(ctx, operator(), tomb)
		stateError(t, err, "it is destroyed")
	}
	f.unlock(m)
	assert.Equal(t, uint32(3), f.rotate(kms.DefaultKeyring).Version, "no number is used again")

	// A new process sees the same.
	keys, err := kms.OpenKeys(ctx, f.keysConfig(f.roots()...))
	require.NoError(t, err)
	defer keys.Wipe()
}

func TestSystemKeyringRotates(t *testing.T) {
	f, ctx := newFixture(t), t.Context()
	require.Equal(t, uint32(2), f.rotate(kms.SystemKeyring).Version)
	r := f.rewrapAll(kms.SystemKeyring, 10)
	assert.Equal(t, 1, r.Done, "the challenge key")
	assert.Zero(t, r.Remaining)
	f.disable("system@1")
	_, err := f.ScheduleDestroy(ctx, operator(), f.version("system@1"), 0)
	require.NoError(t, err)
	f.clock.Advance(kms.DefaultDestroyWait)
	require.NoError(t, f.TendKeyrings(ctx))
	require.Equal(t, kms.KeyringDestroyed, f.version("system@1").Status)
	_, err = kms.OpenChallenges(ctx, f.keys, f.clock.Now, rand.Reader)
	require.NoError(t, err, "the key opens under version 2")
}

func TestRotateIsCompareAndSet(t *testing.T) {
	f, ctx := newFixture(t), t.Context()
	wraps, unwraps := f.root.wraps.Load(), f.root.unwraps.Load()
	_, err := f.RotateKeyring(ctx, operator(), "default", 1)
	require.NoError(t, err)
	assert.Equal(t, []int64{wraps + 1, unwraps + 1}, []int64{f.root.wraps.Load(), f.root.unwraps.Load()})
	before := f.root.calls()
	_, err = f.RotateKeyring(ctx, operator(), "default", 1)
	stateError(t, err, "somebody rotated it meanwhile")
	assert.Greater(t, f.root.calls(), before)
	_, err = f.FindKeyringVersion(ctx, "default@3")
	require.ErrorIs(t, err, kms.ErrNotFound)
	_, err = f.CreateKeyring(ctx, operator(), "default")
	require.ErrorIs(t, err, kms.ErrExists)

	var rotated atomic.Int64
	var done sync.WaitGroup
	for range 8 {
		done.Go(func() {
			if _, err := f.RotateKeyring(ctx, operator(), "default", 2); err == nil {
				rotated.Add(1)
			}
		})
	}
	done.Wait()
	assert.Equal(t, int64(1), rotated.Load())
	f.unlock(f.active("web-1"))
}

// A version that is not durable wraps nothing, whatever became of it.
func TestRotateFailsAndNothingIsLost(t *testing.T) {
	f, ctx := newFixture(t), t.Context()
	f.root.away.Store(true)
	_, err := f.RotateKeyring(ctx, operator(), "default", 0)
	require.ErrorIs(t, err, root.ErrUnavailable)
	f.root.away.Store(false)
	dry := operator()
	dry.DryRun = true
	before := f.root.calls()
	_, err = f.RotateKeyring(ctx, dry, "default", 0)
	require.NoError(t, err)
	assert.Equal(t, before, f.root.calls(), "a dry run asks no root")
	m := f.active("web-17")
	secrets := f.secretsOf(m)
	assert.Equal(t, uint32(1), secrets[0].KeyringVersion)
	f.unlock(m)
}

// A root that wraps what it does not open is found out before anything is stored.
func TestRotateReadsBack(t *testing.T) {
	f := newFixture(t)
	f.root.Root = &lyingRoot{f.root.Root}
	_, err := f.RotateKeyring(t.Context(), operator(), "default", 0)
	require.ErrorContains(t, err, "opens it to another key")
	_, err = f.FindKeyringVersion(t.Context(), "default@2")
	require.ErrorIs(t, err, kms.ErrNotFound)
}

type lyingRoot struct{ root.Root }

func (l *lyingRoot) Unwrap(context.Context, []byte, []byte) (secret.Bytes, error) {
	return secret.New(make([]byte, root.KeySize)), nil
}

func TestAssignKeyring(t *testing.T) {
	f, ctx := newFixture(t), t.Context()
	m, other := f.active("web-17"), f.active("web-18")
	_, err := f.CreateKeyring(ctx, operator(), "prod")
	require.NoError(t, err)
	before := f.root.calls()
	done, err := f.AssignKeyring(ctx, operator(), "web-17", "prod")
	require.NoError(t, err)
	assert.Equal(t, []any{"prod", 2, 4}, []any{done.Keyring, done.Volumes, done.Secrets})
	assert.Equal(t, before, f.root.calls())
	for _, s := range f.secretsOf(m) {
		assert.Equal(t, []any{"prod", uint32(1)}, []any{s.Keyring, s.KeyringVersion})
	}
	assert.Equal(t, "default", f.secretsOf(other)[0].Keyring)
	f.unlock(m)
	f.rotate("prod")
	assert.Equal(t, 4, f.rewrapAll("prod", 3).Done)
	f.unlock(m)

	_, err = f.AssignKeyring(ctx, operator(), "web-17", kms.SystemKeyring)
	stateError(t, err, "no machine's")
	_, err = f.AssignKeyring(ctx, operator(), "web-17", "none")
	require.ErrorIs(t, err, kms.ErrNotFound)
	spoiled := f.secretsOf(other)[0]
	spoiled.Wrapped = f.secretsOf(m)[0].Wrapped
	f.write(kms.Outcome{Secrets: []kms.Secret{spoiled}})
	_, err = f.AssignKeyring(ctx, operator(), "web-18", "prod")
	stateError(t, err, "does not open")
	assert.Equal(t, "default", f.secretsOf(other)[1].Keyring, "all or none")
}

// The census is looked at again when the time comes.
func TestErasureIsRefusedWhereSomethingDepends(t *testing.T) {
	f, ctx := newFixture(t), t.Context()
	f.active("web-17")
	f.rotate("default")
	f.rewrapAll("default", 100)
	f.disable("default@1")
	_, err := f.ScheduleDestroy(ctx, operator(), f.version("default@1"), 0)
	require.NoError(t, err)
	f.clock.Advance(kms.DefaultDestroyWait)
	f.Store = &alsoDepends{f.Store}
	require.NoError(t, f.TendKeyrings(ctx))
	v := f.version("default@1")
	assert.Equal(t, kms.KeyringDisabled, v.Status, "what depends on it opens again")
	entry := f.latest(kms.ActionEraseKeyring)
	assert.Equal(t, audit.Failed, entry.Outcome)
	assert.Contains(t, entry.Facts, audit.Fact{Name: "dependents", Is: "1"})
}

// alsoDepends has a row depend on version 1 of every keyring.
type alsoDepends struct{ kms.Store }

func (a *alsoDepends) Transact(ctx context.Context, key kms.Key, decide func(kms.State) (kms.Outcome, error)) error {
	return a.Store.Transact(ctx, key, func(state kms.State) (kms.Outcome, error) {
		state.Dependents = append(state.Dependents, kms.Dependents{Keyring: key.Keyring, Version: 1, Kind: kms.DependentSecret, Count: 1})
		return decide(state)
	})
}

func TestKeyringUsage(t *testing.T) {
	f, ctx := newFixture(t), t.Context()
	var usage *kms.UsageError
	for _, name := range []string{"", "-a", "a.b", "A", "a_b", "kw1.x", string(make([]byte, 100))} {
		_, err := f.CreateKeyring(ctx, operator(), name)
		require.ErrorAs(t, err, &usage, name)
	}
	for _, ref := range []string{"default", "default@", "default@x", "default@-1", "default@99999999999"} {
		_, err := f.FindKeyringVersion(ctx, ref)
		require.ErrorAs(t, err, &usage, ref)
	}
	_, err := f.ScheduleDestroy(ctx, operator(), f.version("default@1"), time.Hour)
	require.ErrorAs(t, err, &usage)
	for _, limit := range []int{0, -1, kms.MaxRewrapPage + 1} {
		_, err := f.RewrapPage(ctx, operator(), "default", "", limit, noPause)
		require.ErrorAs(t, err, &usage)
	}
	_, err = f.RewrapPage(ctx, operator(), "none", "", 1, noPause)
	require.ErrorIs(t, err, kms.ErrNotFound)
	_, _, err = f.DependentsOn(ctx, f.version("default@1"), "2/a/b/1", 1)
	require.ErrorAs(t, err, &usage)
}

// TestKeyringsLoseNothing does what operators, machines and the clock can do with
// keyrings, in any order: every machine goes on getting its keys, the census is
// what there is, and what is destroyed opened nothing.
func TestKeyringsLoseNothing(t *testing.T) {
	seed := mathrand.Uint64()
	t.Logf("seed %d", seed)
	f, ctx, random := newFixture(t), t.Context(), mathrand.New(mathrand.NewPCG(seed, 1))
	var machines []*sim.Machine
	keys := make(map[string]string)
	destroyed := 0
	for step := range 120 {
		if step%12 == 0 && len(machines) < 6 {
			machines = append(machines, f.active(fmt.Sprintf("web-%d", step)))
		}
		f.tryAnything(random)
		m := machines[random.IntN(len(machines))]
		m.Boot()
		release, err := m.Unlock(ctx, f.guest())
		require.NoError(t, err, "step %d", step)
		for _, s := range release.Secrets {
			sum := fmt.Sprintf("%x", s.Key.Expose())
			if known, ok := keys[s.Volume]; ok {
				require.Equal(t, known, sum, "another secret")
			}
			keys[s.Volume] = sum
		}
		f.clock.Advance(time.Hour)
	}
	list, err := f.Keyrings(ctx)
	require.NoError(t, err)
	for _, k := range list {
		for _, v := range k.Versions {
			if v.Status == kms.KeyringDestroyed {
				destroyed++
			}
			if v.Status == kms.KeyringDestroyed || v.Status == kms.KeyringScheduled {
				assert.Zero(t, k.Count(v.Version))
			}
		}
	}
	t.Logf("%d versions destroyed", destroyed)
	reopened, err := kms.OpenKeys(ctx, f.keysConfig(f.roots()...))
	require.NoError(t, err)
	reopened.Wipe()
}

// tryAnything does one thing with a keyring; that it is refused is fine.
func (f *fixture) tryAnything(random *mathrand.Rand) {
	f.t.Helper()
	ctx, name := f.t.Context(), []string{kms.DefaultKeyring, kms.DefaultKeyring, kms.SystemKeyring}[random.IntN(3)]
	k, err := f.FindKeyring(ctx, name)
	require.NoError(f.t, err)
	v := &k.Versions[random.IntN(len(k.Versions))]
	switch random.IntN(9) {
	case 0:
		_, err = f.RotateKeyring(ctx, operator(), name, uint32(random.IntN(2))*k.Current)
	case 1, 2:
		_, err = f.RewrapPage(ctx, operator(), name, "", 1+random.IntN(12), noPause)
	case 3, 4:
		_, err = f.DisableKeyring(ctx, operator(), v)
	case 5:
		_, err = f.EnableKeyring(ctx, operator(), v)
	case 6:
		_, err = f.ScheduleDestroy(ctx, operator(), v, kms.MinDestroyWait)
	case 7:
		_, err = f.CancelDestroy(ctx, operator(), v)
	case 8:
		f.clock.Advance(kms.MinDestroyWait)
		err = f.TendKeyrings(ctx)
	}
	var state *kms.StateError
	var inUse *kms.InUseError
	if !errors.As(err, &state) && !errors.As(err, &inUse) {
		require.NoError(f.t, err)
	}
}
