package kms_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/envelope"
	"keywright.dev/kms/root"
	"keywright.dev/kms/secret"
)

// held is a root whose answers are on their way until somebody lets them go.
type held struct {
	*switched
	answered, letGo chan struct{}
}

func (h *held) Unwrap(ctx context.Context, wrapped, c []byte) (secret.Bytes, error) {
	key, err := h.switched.Unwrap(ctx, wrapped, c)
	h.answered <- struct{}{}
	<-h.letGo
	return key, err
}

// What a root answered before the leases were dropped begins no lease.
func TestAnswerFromBeforeADropIsNotHeld(t *testing.T) {
	r := &held{newSwitched(t), make(chan struct{}), make(chan struct{})}
	f := newFixtureOn(t, r.switched)
	f.clock.Advance(kms.DefaultLease)
	config := f.keysConfig(r.switched)
	keys, err := kms.OpenKeys(t.Context(), config)
	require.NoError(t, err)
	keys.Roots[0] = r
	f.clock.Advance(kms.DefaultLease)

	opened := make(chan error, 1)
	go func() { opened <- keys.Open(t.Context(), kms.DefaultKeyring, 1) }()
	<-r.answered
	keys.Epoch(1)
	close(r.letGo)
	require.NoError(t, <-opened)
	for _, l := range keys.Leases() {
		assert.Zero(t, l.Left, "%s@%d", l.Keyring, l.Version)
	}
	assert.Zero(t, keys.HeldKeys())

	go func() { <-r.answered }()
	require.NoError(t, keys.Open(t.Context(), kms.DefaultKeyring, 1), "a root opens it again")
	assert.Equal(t, 1, keys.HeldKeys())
}

// Keys whose lease has ended are wiped, also where the store does not answer.
func TestEndedLeasesAreWipedWhateverHappens(t *testing.T) {
	r := newSwitched(t)
	f := rooted(t, r)
	require.Equal(t, versions, f.keys.HeldKeys())
	f.clock.Advance(kms.DefaultLease)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Error(t, f.keys.Upkeep(ctx))
	assert.Zero(t, f.keys.HeldKeys())
}

// A start says at once what it waits for: without the system keyring others are of
// no use.
func TestStartOpensTheSystemKeyringFirst(t *testing.T) {
	r := newSwitched(t)
	f := newFixtureOn(t, r)
	r.calls.Store(0)
	r.down.Store(true)
	_, err := kms.OpenKeys(t.Context(), f.keysConfig(r))
	require.ErrorIs(t, err, kms.ErrRoots)
	require.ErrorContains(t, err, "keyring/system@1")
	assert.EqualValues(t, 1, r.calls.Load())
}

// crowd is a root that answers only where several calls wait for it together.
type crowd struct {
	*switched
	came   atomic.Int64
	wanted int64
	all    chan struct{} // closed when they came
}

func (c *crowd) Unwrap(ctx context.Context, wrapped, context []byte) (secret.Bytes, error) {
	key, err := c.switched.Unwrap(ctx, wrapped, context)
	if c.came.Add(1) == c.wanted {
		close(c.all)
	}
	select {
	case <-c.all:
	case <-ctx.Done():
		key.Wipe()
		return secret.Bytes{}, root.ErrUnavailable
	}
	return key, err
}

// A root that hangs takes its whole time for each version: the upkeep does not wait
// for one after the other.
func TestUpkeepOpensSeveralVersionsAtOnce(t *testing.T) {
	r := newSwitched(t)
	f := newFixtureOn(t, r)
	for _, name := range []string{"a", "b"} {
		_, err := f.CreateKeyring(t.Context(), operator(), name)
		require.NoError(t, err)
	}
	for _, upkeep := range []func(context.Context) error{f.keys.Upkeep, f.TendKeyrings} {
		f.keys.Roots[0] = &crowd{switched: r, wanted: versions + 2, all: make(chan struct{})}
		f.clock.Advance(kms.DefaultLease)
		require.NoError(t, upkeep(t.Context()))
	}
}

// What needs no root is done although a lease has ended and no root answers.
func TestKeyringsChangeWhileRootsAreAway(t *testing.T) {
	r := newSwitched(t)
	f := rooted(t, r)
	f.rotate(kms.DefaultKeyring)
	r.down.Store(true)
	f.clock.Advance(kms.DefaultLease)
	v, err := f.DisableKeyring(t.Context(), operator(), f.version("default@1"))
	require.NoError(t, err)
	assert.Equal(t, kms.KeyringDisabled, v.Status)
	_, err = f.ScheduleDestroy(t.Context(), operator(), f.version("default@1"), 0)
	require.NoError(t, err)
	_, err = f.CancelDestroy(t.Context(), operator(), f.version("default@1"))
	require.NoError(t, err, "it opens once a root answers")
	r.down.Store(false)
	f.clock.Advance(time.Minute)
	require.NoError(t, f.TendKeyrings(t.Context()))
}

type serviceKeys = kms.ServiceKeys

// late is a store whose rows are changed while they are on their way to a reader.
type late struct {
	serviceKeys
	meanwhile func()
}

func (l *late) Keyrings(ctx context.Context) ([]kms.KeyringVersion, error) {
	rows, err := l.serviceKeys.Keyrings(ctx)
	if do := l.meanwhile; do != nil {
		l.meanwhile = nil
		do()
	}
	return rows, err
}

// An upkeep that read the rows before a rotation does not take its version back.
func TestOlderRowsDoNotReplaceNewerOnes(t *testing.T) {
	r := newSwitched(t)
	f := rooted(t, r)
	store := &late{serviceKeys: f.store}
	config := f.keysConfig(r)
	config.Store = store
	keys, err := kms.OpenKeys(t.Context(), config)
	require.NoError(t, err)
	store.meanwhile = func() {
		require.NoError(t, keys.Add(t.Context(), kms.DefaultKeyring, 2, func(v kms.KeyringVersion) error {
			return f.store.AddKeys(t.Context(), []kms.KeyringVersion{v}, nil, nil)
		}))
	}
	require.NoError(t, keys.Upkeep(t.Context()))
	_, version, err := keys.Wrap(envelope.Context{Keyring: kms.DefaultKeyring, Purpose: "test"}, secret.Copy([]byte("s")))
	require.NoError(t, err)
	assert.Equal(t, uint32(2), version)
	assert.Equal(t, versions+1, keys.HeldKeys(), "nor its key")
}
