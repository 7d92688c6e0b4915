package storetest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
)

// everything is an outcome with a row of each kind.
func everything(t testing.TB, n int) kms.Outcome {
	o := family(n)
	o.Redeem = &kms.Redemption{Challenge: Digest("challenge", n), KeepUntil: time.Now().Add(time.Hour)}
	o.Measurements = []kms.Measurement{NewMeasurement("web", n)}
	o.Platforms = []kms.Platform{NewPlatform(MachineID(n), n)}
	o.Entries = []kms.LogEntry{NewEntry(t, NewSigner(t), MachineID(n), actionRelease, n)}
	return o
}

// requireNothing demands that none of everything n is stored.
func requireNothing(t testing.TB, s Store, n int) {
	t.Helper()
	challenge, platform := Digest("challenge", n), Digest("platform", n)
	require.Equal(t, kms.State{}, stateOf(t, s, kms.Key{
		Machine: MachineID(n), AKName: NewMachine(n).AKName, Name: NewMachine(n).Name, Challenge: &challenge,
		Measurements: [][32]byte{Digest("measurement", n)}, Group: "web", Platform: &platform,
	}))
	entries, err := s.LatestEntries(context.Background(), MachineID(n), "", 10)
	require.NoError(t, err)
	require.Empty(t, entries)
	secrets, err := s.Secrets(context.Background(), VolumeID(2*n))
	require.NoError(t, err)
	require.Empty(t, secrets)
}

// Whichever row can't be written, none is.
func testWholeOrNotAtAll(t *testing.T, s Store) {
	put(t, s, everything(t, 1))
	before, err := s.Counts(context.Background())
	require.NoError(t, err)
	wrong := map[string]func(*kms.Outcome){
		"redemption": func(o *kms.Outcome) { o.Redeem.Challenge = Digest("challenge", 1) },
		"machine":    func(o *kms.Outcome) { o.Machine.Name = NewMachine(1).Name },
		"volume":     func(o *kms.Outcome) { o.Volumes[1].Machine = MachineID(9) },
		"secret":     func(o *kms.Outcome) { o.Secrets[2].Volume = VolumeID(9999) },
		"platform":   func(o *kms.Outcome) { o.Platforms[0].Machine = MachineID(9) },
	}
	for name, spoil := range wrong {
		o := everything(t, 2)
		spoil(&o)
		require.Error(t, s.Transact(context.Background(), kms.Key{Machine: MachineID(1)}, decideTo(o)), name)
		requireNothing(t, s, 2)
	}
	after, err := s.Counts(context.Background())
	require.NoError(t, err)
	assert.Equal(t, before, after)
	put(t, s, everything(t, 2))
}

func testUniqueNames(t *testing.T, s Store) {
	put(t, s, family(1))
	other := NewMachine(2)
	other.Name = "web-1"
	assert.ErrorIs(t, s.Transact(context.Background(), kms.Key{}, decideTo(kms.Outcome{Machine: other})), kms.ErrExists, "name")
	other = NewMachine(2)
	other.AKName = NewMachine(1).AKName
	assert.ErrorIs(t, s.Transact(context.Background(), kms.Key{}, decideTo(kms.Outcome{Machine: other})), kms.ErrExists, "AK")
	volume := NewVolume(MachineID(1), 2)
	volume.ID = VolumeID(9)
	assert.ErrorIs(t, s.Transact(context.Background(), kms.Key{}, decideTo(kms.Outcome{Volumes: []kms.Volume{volume}})),
		kms.ErrExists, "LUKS UUID within the machine")

	for n := range 2 { // many machines have no name yet
		pending := NewMachine(3 + n)
		pending.Name = ""
		put(t, s, kms.Outcome{Machine: pending})
	}
	volume = NewVolume(MachineID(3), 2) // another machine's disk may have the same UUID
	volume.ID = VolumeID(9)
	put(t, s, kms.Outcome{Volumes: []kms.Volume{volume}})
}

func testRowsOfNobody(t *testing.T, s Store) {
	for name, o := range map[string]kms.Outcome{
		"volume":   {Volumes: []kms.Volume{NewVolume(MachineID(9), 1)}},
		"secret":   {Secrets: []kms.Secret{NewSecret(VolumeID(9), 1)}},
		"platform": {Platforms: []kms.Platform{NewPlatform(MachineID(9), 1)}},
	} {
		assert.ErrorIs(t, s.Transact(context.Background(), kms.Key{}, decideTo(o)), kms.ErrNotFound, name)
	}
}

func testDecisionFails(t *testing.T, s Store) {
	failure := errors.New("the decision's own")
	err := s.Transact(context.Background(), kms.Key{}, func(kms.State) (kms.Outcome, error) {
		return everything(t, 1), failure
	})
	assert.Same(t, failure, err, "returned as it is")
	requireNothing(t, s, 1)
}

// A decision that panics does so to its caller; the store goes on.
func testDecisionPanics(t *testing.T, s Store) {
	assert.PanicsWithValue(t, "no decision", func() {
		_ = s.Transact(context.Background(), kms.Key{}, func(kms.State) (kms.Outcome, error) { panic("no decision") })
	})
	put(t, s, everything(t, 1))
}

// A decision that ends its goroutine, as a failed test does, holds up nobody.
func testDecisionExits(t *testing.T, s Store) {
	never := everything(t, 1)
	var caller sync.WaitGroup
	caller.Add(1)
	go func() {
		defer caller.Done()
		_ = s.Transact(context.Background(), kms.Key{}, func(kms.State) (kms.Outcome, error) {
			exit()
			return never, nil
		})
	}()
	caller.Wait()
	requireNothing(t, s, 1)
	put(t, s, everything(t, 1))
}

// A refusal is an outcome: challenge and entry are kept.
func testRefusal(t *testing.T, s Store) {
	put(t, s, family(1))
	challenge := Digest("challenge", 1)
	put(t, s, kms.Outcome{
		Redeem:  &kms.Redemption{Challenge: challenge, KeepUntil: time.Now().Add(time.Hour)},
		Entries: []kms.LogEntry{NewEntry(t, NewSigner(t), MachineID(1), "boot.refuse", 1)},
	})
	assert.True(t, stateOf(t, s, kms.Key{Challenge: &challenge}).Redeemed)
	entries, err := s.LatestEntries(context.Background(), MachineID(1), "boot.refuse", 10)
	require.NoError(t, err)
	assert.Len(t, entries, 1)
	assert.Equal(t, NewMachine(1), stateOf(t, s, kms.Key{Machine: MachineID(1)}).Machine)
}

// A second redemption fails even where decide overlooks the first.
func testRedeemOnce(t *testing.T, s Store) {
	put(t, s, everything(t, 1))
	o := family(2)
	o.Redeem = &kms.Redemption{Challenge: Digest("challenge", 1), KeepUntil: time.Now().Add(time.Hour)}
	assert.ErrorIs(t, s.Transact(context.Background(), kms.Key{}, decideTo(o)), kms.ErrRedeemed)
	requireNothing(t, s, 2)
}
