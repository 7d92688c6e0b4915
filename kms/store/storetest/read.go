package storetest

import (
	"context"
	"encoding/hex"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
)

func testNotFound(t *testing.T, s Store) {
	put(t, s, family(1))
	got, err := s.Machine(context.Background(), MachineID(1))
	require.NoError(t, err)
	assert.Equal(t, NewMachine(1), got)
	_, err = s.Machine(context.Background(), MachineID(2))
	assert.ErrorIs(t, err, kms.ErrNotFound)
	_, err = s.Machine(context.Background(), MachineID(1)[:12])
	assert.ErrorIs(t, err, kms.ErrNotFound, "a whole id only")
}

func testFindVolumes(t *testing.T, s Store) {
	put(t, s, family(1))
	put(t, s, family(2))
	find := func(ref string, limit int) (ids []string) {
		found, err := s.FindVolumes(context.Background(), ref, limit)
		require.NoError(t, err)
		for _, v := range found {
			ids = append(ids, v.ID)
		}
		return ids
	}
	one := NewVolume(MachineID(1), 2)
	assert.Equal(t, []string{one.ID}, find(one.ID, 5))
	assert.Equal(t, []string{one.ID}, find(one.ID[:12], 5))
	assert.Equal(t, []string{one.ID}, find(one.UUID, 5))
	assert.Empty(t, find(one.UUID[:20], 5), "a UUID is given whole")
	assert.Empty(t, find("zz", 5))
	all := find("", 9)
	assert.Len(t, all, 4)
	assert.True(t, slices.IsSorted(all))
	assert.Equal(t, all[:3], find("", 3))
	one.Status = kms.VolumeFormer
	put(t, s, kms.Outcome{Volumes: []kms.Volume{one}})
	assert.Empty(t, find(one.UUID, 5), "a disk that enrolled again is its new volume")
	assert.Equal(t, []string{one.ID}, find(one.ID, 5))
}

func testFindMachines(t *testing.T, s Store) {
	for n := range 3 {
		put(t, s, kms.Outcome{Machine: NewMachine(n)})
	}
	unnamed := NewMachine(3)
	unnamed.Name = ""
	tricky := NewMachine(4)
	tricky.Name = MachineID(0)[:12] // the beginning of another's id
	put(t, s, kms.Outcome{Machine: unnamed})
	put(t, s, kms.Outcome{Machine: tricky})

	for ref, want := range map[string][]string{
		"web-1":                {MachineID(1)},
		"proposed-3":           {MachineID(3)},
		"proposed-1":           nil, // it has a name
		MachineID(2):           {MachineID(2)},
		MachineID(2)[:16]:      {MachineID(2)},
		MachineID(0)[:12]:      {MachineID(4), MachineID(0)}, // the name first
		MachineID(2) + "0":     nil,
		"web":                  nil, // names match whole
		"%":                    nil,
		"_eb-1":                nil,
		"' OR id <> '":         nil,
		"ffffffffffffffffffff": nil,
	} {
		assert.Equal(t, want, find(t, s, ref, 10), ref)
	}
	assert.Equal(t, []string{MachineID(4)}, find(t, s, MachineID(0)[:12], 1))
}

func find(t *testing.T, s Store, ref string, limit int) (ids []string) {
	t.Helper()
	found, err := s.FindMachines(context.Background(), ref, limit)
	require.NoError(t, err)
	for _, m := range found {
		ids = append(ids, m.ID)
	}
	return ids
}

func testPagesOfMachines(t *testing.T, s Store) {
	ids := make(map[kms.MachineFilter][]string)
	for n := range 23 {
		m := NewMachine(n)
		if n%3 == 0 {
			m.Status = kms.MachinePending
		}
		if n%2 == 0 {
			m.Group = "db"
		}
		put(t, s, kms.Outcome{Machine: m})
		for _, f := range []kms.MachineFilter{{}, {Status: m.Status}, {Group: m.Group}, {Status: m.Status, Group: m.Group}} {
			ids[f] = append(ids[f], m.ID)
		}
	}
	require.Len(t, ids, 1+2+2+4)
	for filter, want := range ids {
		slices.Sort(want)
		var got []string
		for after := ""; ; after = got[len(got)-1] {
			page, err := s.Machines(context.Background(), filter, after, 4)
			require.NoError(t, err)
			for _, m := range page {
				got = append(got, m.ID)
			}
			if len(page) < 4 {
				break
			}
		}
		assert.Equal(t, want, got, "%+v", filter)
	}
	none, err := s.Machines(context.Background(), kms.MachineFilter{Status: kms.MachineRevoked}, "", 4)
	require.NoError(t, err)
	assert.Empty(t, none)
}

func testPagesOfVolumes(t *testing.T, s Store) {
	var all, ofOne []string
	for n := range 5 {
		put(t, s, family(n))
		all = append(all, VolumeID(2*n), VolumeID(2*n+1))
	}
	ofOne = []string{VolumeID(2), VolumeID(3)}
	slices.Sort(all)
	slices.Sort(ofOne)
	assert.Equal(t, all, volumes(t, s, "", 3))
	assert.Equal(t, ofOne, volumes(t, s, MachineID(1), 1))
	assert.Empty(t, volumes(t, s, MachineID(9), 1))

	secrets, err := s.Secrets(context.Background(), VolumeID(2))
	require.NoError(t, err)
	assert.Equal(t, []kms.Secret{NewSecret(VolumeID(2), 1), NewSecret(VolumeID(2), 2)}, secrets)
}

func volumes(t *testing.T, s Store, machine string, limit int) (ids []string) {
	t.Helper()
	for after := ""; ; after = ids[len(ids)-1] {
		page, err := s.Volumes(context.Background(), machine, after, limit)
		require.NoError(t, err)
		for _, v := range page {
			ids = append(ids, v.ID)
		}
		if len(page) < limit {
			return ids
		}
	}
}

func testPagesOfMeasurements(t *testing.T, s Store) {
	var all []kms.Measurement
	for n := range 6 {
		for _, group := range []string{"a", "b", "c"}[:1+n%3] {
			all = append(all, NewMeasurement(group, n))
		}
	}
	put(t, s, kms.Outcome{Measurements: all})
	slices.SortFunc(all, func(a, b kms.Measurement) int {
		return slices.Compare(append(a.Digest[:], a.Group...), append(b.Digest[:], b.Group...))
	})
	assert.Equal(t, all, measurements(t, s, "", 2))
	assert.Equal(t, slices.DeleteFunc(slices.Clone(all), func(m kms.Measurement) bool { return m.Group != "b" }),
		measurements(t, s, "b", 1))
	_, err := s.Measurements(context.Background(), "", "not hex", 2)
	assert.Error(t, err)
}

// measurements reads page by page; no page may end between two groups.
func measurements(t *testing.T, s Store, group string, limit int) (all []kms.Measurement) {
	t.Helper()
	for after := ""; ; {
		page, err := s.Measurements(context.Background(), group, after, limit)
		require.NoError(t, err)
		if len(page) == 0 {
			return all
		}
		all = append(all, page...)
		last := page[len(page)-1].Digest
		after = hex.EncodeToString(last[:])
	}
}

func testFindMeasurements(t *testing.T, s Store) {
	one, two, other := NewMeasurement("a", 1), NewMeasurement("b", 1), NewMeasurement("a", 2)
	put(t, s, kms.Outcome{Measurements: []kms.Measurement{two, one, other}})
	digest := hex.EncodeToString(one.Digest[:])
	for ref, want := range map[string][]kms.Measurement{
		digest:                                 {one, two},
		digest[:9]:                             {one, two},
		digest[:8]:                             {one, two},
		digest + "00":                          nil,
		"zz":                                   nil,
		digest[:8] + string(rune(digest[8]^1)): nil,
	} {
		got, err := s.FindMeasurements(context.Background(), ref, 10)
		require.NoError(t, err)
		assert.Equal(t, want, got, ref)
	}
	got, err := s.FindMeasurements(context.Background(), digest, 1)
	require.NoError(t, err)
	assert.Equal(t, []kms.Measurement{one}, got)
}

// However many wait for an operator, the approved ones are found.
func testApprovedMeasurements(t *testing.T, s Store) {
	var first, second kms.Measurement
	for n := range 20 {
		m := NewMeasurement("web", n)
		switch n {
		case 7:
			first = m
		case 11:
			second = m
		default:
			m.Status = kms.MeasurementSeen
		}
		put(t, s, kms.Outcome{Measurements: []kms.Measurement{m, NewMeasurement("db", n)}})
	}
	got, err := s.ApprovedMeasurements(context.Background(), "web", 10)
	require.NoError(t, err)
	assert.Equal(t, []kms.Measurement{second, first}, got, "those of the group, the last first")
	got, err = s.ApprovedMeasurements(context.Background(), "web", 1)
	require.NoError(t, err)
	assert.Equal(t, []kms.Measurement{second}, got)
	got, err = s.ApprovedMeasurements(context.Background(), "", 10)
	require.NoError(t, err)
	assert.Empty(t, got)
}

func testPlatforms(t *testing.T, s Store) {
	put(t, s, family(1))
	put(t, s, family(2))
	one, two := NewPlatform(MachineID(1), 1), NewPlatform(MachineID(1), 2)
	shared := two
	shared.Machine = MachineID(2)
	put(t, s, kms.Outcome{Platforms: []kms.Platform{two, one, shared}})
	got, err := s.Platforms(context.Background(), MachineID(1))
	require.NoError(t, err)
	assert.Equal(t, []kms.Platform{two, one}, got, "newest first")
	one.Approved = false
	put(t, s, kms.Outcome{Platforms: []kms.Platform{one}})
	digest := one.Digest
	assert.Equal(t, &one, stateOf(t, s, kms.Key{Machine: MachineID(1), Platform: &digest}).Platform)
	assert.Nil(t, stateOf(t, s, kms.Key{Machine: MachineID(2), Platform: &digest}).Platform, "another machine's")
}

func testCounts(t *testing.T, s Store) {
	counts := func() kms.Counts {
		c, err := s.Counts(context.Background())
		require.NoError(t, err)
		return c
	}
	assert.Equal(t, kms.Counts{
		Machines: map[kms.MachineStatus]int64{}, Measurements: map[kms.MeasurementStatus]int64{}, Alarms: map[kms.Alarm]int64{},
	}, counts())
	for n := range 3 {
		put(t, s, everything(t, n))
		put(t, s, kms.Outcome{Machine: NewMachine(n)}) // again
	}
	revoked, seen, quiet := NewMachine(0), NewMeasurement("web", 1), NewVolume(MachineID(0), 1)
	revoked.Status, seen.Status = kms.MachineRevoked, kms.MeasurementSeen
	revoked.Regressed, quiet.Foreign = false, false
	put(t, s, kms.Outcome{Machine: revoked, Volumes: []kms.Volume{quiet}, Measurements: []kms.Measurement{seen}, DropVolumes: []string{VolumeID(0)}})
	_, err := s.Sequence(context.Background(), 2, Extend(NewSigner(t)))
	require.NoError(t, err)
	assert.Equal(t, kms.Counts{
		Machines:     map[kms.MachineStatus]int64{kms.MachineActive: 2, kms.MachineRevoked: 1},
		Measurements: map[kms.MeasurementStatus]int64{kms.MeasurementApproved: 2, kms.MeasurementSeen: 1},
		Alarms:       map[kms.Alarm]int64{kms.AlarmCounters: 2, kms.AlarmCopied: 5, kms.AlarmForeign: 4},
		Volumes:      5, Secrets: 7, Entries: 3, Sequenced: 2, LastSecret: Epoch(),
	}, counts())
	replaced := NewSecret(VolumeID(1), 1)
	replaced.Status = kms.SecretRestoreOnly
	put(t, s, kms.Outcome{Secrets: []kms.Secret{replaced}})
	assert.Equal(t, replaced.Replaced, counts().LastSecret)
}

// A limit of zero or less returns nothing, not everything.
func testLimits(t *testing.T, s Store) {
	put(t, s, everything(t, 1))
	ctx := context.Background()
	for _, limit := range []int{0, -1} {
		machines, err := s.Machines(ctx, kms.MachineFilter{}, "", limit)
		require.NoError(t, err)
		found, err := s.FindMachines(ctx, "web-1", limit)
		require.NoError(t, err)
		volumes, err := s.Volumes(ctx, "", "", limit)
		require.NoError(t, err)
		measurements, err := s.Measurements(ctx, "", "", limit)
		require.NoError(t, err)
		entries, err := s.LatestEntries(ctx, "", "", limit)
		require.NoError(t, err)
		n, err := s.Sequence(ctx, limit, Extend(NewSigner(t)))
		require.NoError(t, err)
		assert.Zero(t, len(machines)+len(found)+len(volumes)+len(measurements)+len(entries)+n)
	}
}
