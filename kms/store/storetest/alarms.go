package storetest

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
)

// The LUKS UUID of a former volume is free for the one that comes after it.
func testFormerVolumes(t *testing.T, s Store) {
	put(t, s, family(1))
	again := NewVolume(MachineID(1), 2)
	again.ID = VolumeID(99)
	err := s.Transact(context.Background(), kms.Key{}, decideTo(kms.Outcome{Volumes: []kms.Volume{again}}))
	require.ErrorIs(t, err, kms.ErrExists)
	former := NewVolume(MachineID(1), 2)
	former.Status = kms.VolumeFormer
	put(t, s, kms.Outcome{Volumes: []kms.Volume{former, again}})
	earlier := former
	earlier.ID = VolumeID(98)
	put(t, s, kms.Outcome{Volumes: []kms.Volume{earlier}})
	got := stateOf(t, s, kms.Key{Machine: MachineID(1)})
	assert.ElementsMatch(t, []kms.Volume{earlier, former, again, NewVolume(MachineID(1), 3)}, got.Volumes)
	assert.Len(t, got.Secrets, 3, "they are kept")
}

// sortedVolumes orders as stores do.
func sortedVolumes(volumes []kms.Volume) []kms.Volume {
	return slices.SortedFunc(slices.Values(volumes), func(a, b kms.Volume) int { return strings.Compare(a.ID, b.ID) })
}

func testSameKey(t *testing.T, s Store) {
	key := []byte("one volume key")
	var copies []kms.Volume
	for n := range kms.MaxSameKey + 3 {
		o := family(n)
		o.Volumes[0].VolumeKeyDigest = key
		copies = append(copies, o.Volumes[0])
		put(t, s, o)
	}
	none := NewVolume(MachineID(0), 50)
	none.VolumeKeyDigest = nil
	put(t, s, kms.Outcome{Volumes: []kms.Volume{none}})
	others := sortedVolumes(copies[1:])

	got := stateOf(t, s, kms.Key{Machine: MachineID(0), VolumeKeys: [][]byte{key, []byte("nobody's"), nil}})
	assert.Equal(t, others[:kms.MaxSameKey], got.SameKey, "of other machines, ordered by id, so many")
	got = stateOf(t, s, kms.Key{VolumeKeys: [][]byte{NewVolume(MachineID(1), 3).VolumeKeyDigest}})
	assert.Equal(t, []kms.Volume{NewVolume(MachineID(1), 3)}, got.SameKey, "of a machine that is not there yet")
	assert.Empty(t, stateOf(t, s, kms.Key{Machine: MachineID(0)}).SameKey)

	ctx := context.Background()
	found, err := s.SameKey(ctx, key, MachineID(0), 2)
	require.NoError(t, err)
	assert.Equal(t, others[:2], found)
	found, err = s.SameKey(ctx, nil, MachineID(0), 2)
	require.NoError(t, err)
	assert.Empty(t, found, "no digest is not the same digest")
	found, err = s.SameKey(ctx, key, MachineID(0), 0)
	require.NoError(t, err)
	assert.Empty(t, found)
}

func testAlarmedVolumes(t *testing.T, s Store) {
	var foreign, copied []kms.Volume
	for n := range 4 {
		o := family(n)
		for i := range o.Volumes {
			v := &o.Volumes[i]
			v.Foreign, v.Copied = n%2 == 0, i == 0
			if v.Foreign {
				foreign = append(foreign, *v)
			}
			if v.Copied {
				copied = append(copied, *v)
			}
		}
		put(t, s, o)
	}
	ctx := context.Background()
	for alarm, want := range map[kms.Alarm][]kms.Volume{
		kms.AlarmForeign: sortedVolumes(foreign), kms.AlarmCopied: sortedVolumes(copied), kms.AlarmCounters: nil,
	} {
		got, err := s.AlarmedVolumes(ctx, alarm, "", 10)
		require.NoError(t, err)
		assert.Equal(t, want, got, alarm)
		if want != nil {
			got, err = s.AlarmedVolumes(ctx, alarm, want[0].ID, 2)
			require.NoError(t, err)
			assert.Equal(t, want[1:3], got, "a page")
		}
		got, err = s.AlarmedVolumes(ctx, alarm, "", 0)
		require.NoError(t, err)
		assert.Empty(t, got)
	}
}

// Alarms are counted whichever way they come and go.
func testAlarmCounts(t *testing.T, s Store) {
	counts := func() map[kms.Alarm]int64 {
		c, err := s.Counts(context.Background())
		require.NoError(t, err)
		return c.Alarms
	}
	o := family(1)
	put(t, s, o)
	put(t, s, o) // again
	assert.Equal(t, map[kms.Alarm]int64{kms.AlarmCounters: 1, kms.AlarmCopied: 2, kms.AlarmForeign: 2}, counts())
	quiet := family(1)
	quiet.Machine.Regressed = false
	for i := range quiet.Volumes {
		quiet.Volumes[i].Foreign, quiet.Volumes[i].Copied = false, false
	}
	put(t, s, quiet)
	assert.Empty(t, counts())
	require.NoError(t, s.Transact(context.Background(), kms.Key{Machine: o.Machine.ID}, func(state kms.State) (kms.Outcome, error) {
		state.Machine.Regressed = true
		return kms.Outcome{Machine: state.Machine, Volumes: o.Volumes[:1]}, nil
	}))
	assert.Equal(t, map[kms.Alarm]int64{kms.AlarmCounters: 1, kms.AlarmCopied: 1, kms.AlarmForeign: 1}, counts())
	put(t, s, kms.Outcome{DropVolumes: []string{o.Volumes[0].ID}})
	assert.Equal(t, map[kms.Alarm]int64{kms.AlarmCounters: 1}, counts())
	put(t, s, o)
	put(t, s, kms.Outcome{DropMachine: o.Machine.ID})
	assert.Empty(t, counts())
}
