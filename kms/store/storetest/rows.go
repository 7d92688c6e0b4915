package storetest

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
)

func testState(t *testing.T, s Store) {
	o := family(1)
	o.Measurements = []kms.Measurement{NewMeasurement("web", 0), NewMeasurement("web", 1)}
	o.Platforms = []kms.Platform{NewPlatform(MachineID(1), 1), NewPlatform(MachineID(1), 2)}
	put(t, s, o)
	put(t, s, family(2))

	challenge, platform := Digest("challenge", 1), Digest("platform", 2)
	got := stateOf(t, s, kms.Key{
		Machine: MachineID(1), AKName: NewMachine(2).AKName, Name: "web-2", Challenge: &challenge,
		Measurements: [][32]byte{Digest("measurement", 1), Digest("measurement", 9), Digest("measurement", 0)},
		Platform:     &platform,
	})
	slices.SortFunc(o.Volumes, func(a, b kms.Volume) int { return strings.Compare(a.ID, b.ID) })
	assert.Equal(t, o.Machine, got.Machine)
	assert.Equal(t, o.Volumes, got.Volumes, "ordered by id")
	assert.Equal(t, sortedSecrets(o.Secrets), got.Secrets, "ordered by volume and version")
	assert.Equal(t, MachineID(2), got.AKHolder)
	assert.Equal(t, MachineID(2), got.NameHolder)
	assert.False(t, got.Redeemed)
	assert.ElementsMatch(t, o.Measurements, got.Measurements, "those that exist")
	require.NotNil(t, got.Platform)
	assert.Equal(t, o.Platforms[1], *got.Platform)
	assert.Zero(t, got.SeenPlatforms, "approved ones do not count")
	assert.Zero(t, got.SeenMeasurements, "likewise")
}

func sortedSecrets(secrets []kms.Secret) []kms.Secret {
	return slices.SortedFunc(slices.Values(secrets), func(a, b kms.Secret) int {
		if a.Volume != b.Volume {
			return strings.Compare(a.Volume, b.Volume)
		}
		if a.Purpose != b.Purpose {
			return strings.Compare(a.Purpose, b.Purpose)
		}
		return int(a.Version) - int(b.Version)
	})
}

// What decide does to its state changes nothing that is stored, even where it
// returns parts of it.
func testStateIsACopy(t *testing.T, s Store) {
	put(t, s, family(1))
	want := stateOf(t, s, kms.Key{Machine: MachineID(1)})
	require.NoError(t, s.Transact(context.Background(), kms.Key{Machine: MachineID(1)}, func(state kms.State) (kms.Outcome, error) {
		state.Machine.Name = "changed"
		state.Machine.EK[0]++
		state.Machine.Releases[0]++
		state.Volumes[0].Identity[0]++
		state.Secrets[0].Wrapped = "changed"
		return kms.Outcome{}, nil
	}))
	assert.Equal(t, want, stateOf(t, s, kms.Key{Machine: MachineID(1)}))

	require.NoError(t, s.Transact(context.Background(), kms.Key{Machine: MachineID(1)}, func(state kms.State) (kms.Outcome, error) {
		state.Machine.EK[0]++
		state.Machine.Releases[0]++
		return kms.Outcome{Machine: state.Machine}, nil
	}))
	want.Machine.EK[0]++
	want.Machine.Releases[0]++
	assert.Equal(t, want, stateOf(t, s, kms.Key{Machine: MachineID(1)}), "what is returned is written")
}

func testStateOfNothing(t *testing.T, s Store) {
	put(t, s, family(1))
	digest := Digest("nothing", 1)
	assert.Equal(t, kms.State{}, stateOf(t, s, kms.Key{}), "zero fields name nothing")
	assert.Equal(t, kms.State{}, stateOf(t, s, kms.Key{
		Machine: MachineID(9), AKName: []byte("nobody's"), Name: "nobody", Challenge: &digest,
		Measurements: [][32]byte{digest}, Platform: &digest,
	}))
}

func testMeasurementsOfGroup(t *testing.T, s Store) {
	o := family(1)
	web, db := NewMeasurement("web", 0), NewMeasurement("db", 0)
	o.Measurements = []kms.Measurement{web, db}
	put(t, s, o)
	digests := [][32]byte{web.Digest}
	assert.Equal(t, []kms.Measurement{web}, stateOf(t, s, kms.Key{Machine: MachineID(1), Measurements: digests}).Measurements,
		"the machine's group")
	assert.Equal(t, []kms.Measurement{db},
		stateOf(t, s, kms.Key{Machine: MachineID(1), Measurements: digests, Group: "db"}).Measurements, "the key's group")
	assert.Equal(t, []kms.Measurement{db}, stateOf(t, s, kms.Key{Measurements: digests, Group: "db"}).Measurements)
	assert.Empty(t, stateOf(t, s, kms.Key{Measurements: digests}).Measurements, "neither machine nor group")
}

func testCounters(t *testing.T, s Store) {
	o := family(1)
	seen, other := NewMeasurement("web", 1), NewMeasurement("web", 2)
	seen.Status, seen.Machine = kms.MeasurementSeen, MachineID(1)
	other.Status, other.Machine = kms.MeasurementSeen, MachineID(2)
	waiting := NewPlatform(MachineID(1), 1)
	waiting.Approved = false
	o.Measurements, o.Platforms = []kms.Measurement{seen, other}, []kms.Platform{waiting, NewPlatform(MachineID(1), 2)}
	put(t, s, o)
	got := stateOf(t, s, kms.Key{Machine: MachineID(1)})
	assert.Equal(t, 1, got.SeenMeasurements)
	assert.Equal(t, 1, got.SeenPlatforms)

	seen.Status, waiting.Approved = kms.MeasurementApproved, true
	put(t, s, kms.Outcome{Measurements: []kms.Measurement{seen}, Platforms: []kms.Platform{waiting}})
	got = stateOf(t, s, kms.Key{Machine: MachineID(1)})
	assert.Zero(t, got.SeenMeasurements)
	assert.Zero(t, got.SeenPlatforms)
}

// A hostile TPM chooses its counters; empty fields stay empty.
func testExtremeValues(t *testing.T, s Store) {
	most := NewMachine(1)
	most.Counters = kms.Counters{ResetCount: math.MaxUint32, RestartCount: math.MaxUint32, Clock: math.MaxUint64}
	most.Releases = []uint64{math.MaxUint64, 0, math.MaxInt64 + 1}
	put(t, s, kms.Outcome{Machine: most})
	assert.Equal(t, most, stateOf(t, s, kms.Key{Machine: most.ID}).Machine)

	least := &kms.Machine{ID: MachineID(2), Status: kms.MachinePending, AKName: []byte{1}}
	volume := kms.Volume{ID: VolumeID(1), Machine: least.ID}
	put(t, s, kms.Outcome{Machine: least, Volumes: []kms.Volume{volume}})
	got := stateOf(t, s, kms.Key{Machine: least.ID})
	assert.Equal(t, least, got.Machine)
	assert.Equal(t, []kms.Volume{volume}, got.Volumes)
	assert.True(t, got.Machine.LastRelease.IsZero())
}

func testReplace(t *testing.T, s Store) {
	put(t, s, family(1))
	m := NewMachine(1)
	m.Name, m.Status, m.EKCert, m.Releases, m.Tier = "renamed", kms.MachineRevoked, nil, nil, "staged"
	m.Counters.Clock, m.LastRelease = 1, time.Time{}
	v := NewVolume(m.ID, 2)
	v.Identity, v.Resume, v.Status = nil, nil, kms.VolumePending
	secret := NewSecret(v.ID, 1)
	secret.Wrapped, secret.Status = "kw1.other", kms.SecretPending
	put(t, s, kms.Outcome{Machine: m, Volumes: []kms.Volume{v}, Secrets: []kms.Secret{secret}})

	got := stateOf(t, s, kms.Key{Machine: m.ID, Name: "renamed"})
	assert.Equal(t, m, got.Machine)
	assert.Equal(t, m.ID, got.NameHolder)
	assert.Contains(t, got.Volumes, v)
	assert.Contains(t, got.Secrets, secret)
	assert.Len(t, got.Volumes, 2)
	assert.Len(t, got.Secrets, 3)
	assert.Empty(t, stateOf(t, s, kms.Key{Name: "web-1"}).NameHolder, "the old name is free")
}

// A recovery key is a secret beside the one of the keyslot, with a version of its
// own, and is loaded where it is asked for.
func testRecoveryKeys(t *testing.T, s Store) {
	o := family(1)
	boot, recovery := slices.Clone(o.Secrets), NewRecoveryKey(VolumeID(2), 1)
	o.Secrets = append(o.Secrets, recovery)
	put(t, s, o)
	assert.Equal(t, sortedSecrets(boot), stateOf(t, s, kms.Key{Machine: MachineID(1)}).Secrets, "a boot passes by it")
	got := stateOf(t, s, kms.Key{Machine: MachineID(1), Recovery: true})
	assert.Equal(t, sortedSecrets(o.Secrets), got.Secrets, "ordered by volume, purpose and version")
	assert.Len(t, got.Volumes, 2)

	recovery.Status, recovery.Disclosed = kms.SecretPending, time.Time{}
	put(t, s, kms.Outcome{Secrets: []kms.Secret{recovery}})
	list, err := s.Secrets(context.Background(), VolumeID(2))
	require.NoError(t, err)
	assert.Equal(t, []kms.Secret{NewSecret(VolumeID(2), 1), NewSecret(VolumeID(2), 2), recovery}, list)

	put(t, s, kms.Outcome{DropVolumes: []string{VolumeID(2)}})
	assert.Len(t, stateOf(t, s, kms.Key{Machine: MachineID(1), Recovery: true}).Secrets, 1)
}

// Volumes are dropped with their secrets, before others are written.
func testDropVolumes(t *testing.T, s Store) {
	put(t, s, family(1))
	again := NewVolume(MachineID(1), 2)
	again.ID = VolumeID(99) // same LUKS UUID
	put(t, s, kms.Outcome{
		DropVolumes: []string{VolumeID(2), VolumeID(12345)},
		Volumes:     []kms.Volume{again}, Secrets: []kms.Secret{NewSecret(again.ID, 1)},
	})
	got := stateOf(t, s, kms.Key{Machine: MachineID(1)})
	assert.ElementsMatch(t, []kms.Volume{NewVolume(MachineID(1), 3), again}, got.Volumes)
	assert.ElementsMatch(t, []kms.Secret{NewSecret(VolumeID(3), 1), NewSecret(again.ID, 1)}, got.Secrets)
}

// A machine is dropped with all that is its own, and only that.
func testDropMachine(t *testing.T, s Store) {
	put(t, s, everything(t, 2))
	before, err := s.Counts(context.Background())
	require.NoError(t, err)
	other := stateOf(t, s, kms.Key{Machine: MachineID(2), Measurements: [][32]byte{Digest("measurement", 2)}})

	o := everything(t, 1)
	seen, approved, elsewhere := NewMeasurement("web", 11), NewMeasurement("web", 12), NewMeasurement("web", 13)
	seen.Machine, approved.Machine, elsewhere.Machine = MachineID(1), MachineID(1), MachineID(2)
	seen.Status, elsewhere.Status = kms.MeasurementSeen, kms.MeasurementSeen
	o.Measurements = []kms.Measurement{seen, approved, elsewhere}
	put(t, s, o)
	// Its successor may have what only one machine can have.
	successor := family(3)
	successor.Machine.Name, successor.Machine.AKName = o.Machine.Name, o.Machine.AKName
	successor.DropMachine = MachineID(1)
	put(t, s, successor)
	put(t, s, kms.Outcome{DropMachine: MachineID(1)}) // it is gone

	platform := Digest("platform", 1)
	assert.Equal(t, kms.State{}, stateOf(t, s, kms.Key{Machine: MachineID(1), Platform: &platform}))
	assert.Equal(t, successor.Machine, stateOf(t, s, kms.Key{Machine: MachineID(3)}).Machine)
	assert.Equal(t, []kms.Measurement{approved, elsewhere},
		stateOf(t, s, kms.Key{Group: "web", Measurements: [][32]byte{seen.Digest, approved.Digest, elsewhere.Digest}}).Measurements)
	other.SeenMeasurements++
	assert.Equal(t, other, stateOf(t, s, kms.Key{Machine: MachineID(2), Measurements: [][32]byte{Digest("measurement", 2)}, Group: "web"}))
	entries, err := s.LatestEntries(context.Background(), MachineID(1), "", 10)
	require.NoError(t, err)
	assert.Len(t, entries, 1, "the log forgets nothing")

	put(t, s, kms.Outcome{DropMachine: MachineID(3)})
	after, err := s.Counts(context.Background())
	require.NoError(t, err)
	before.Measurements[kms.MeasurementSeen]++
	before.Measurements[kms.MeasurementApproved]++
	before.Entries++
	assert.Equal(t, before, after)
}
