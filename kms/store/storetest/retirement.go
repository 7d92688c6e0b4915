package storetest

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
)

// What was approved first is first, whenever it was entered.
func testOldestApproved(t *testing.T, s Store) {
	first, second, seen, elsewhere := NewMeasurement("web", 2), NewMeasurement("web", 1), NewMeasurement("web", 3), NewMeasurement("db", 1)
	second.Approved, seen.Status = first.Approved.Add(time.Minute), kms.MeasurementSeen
	put(t, s, kms.Outcome{Measurements: []kms.Measurement{second, first, seen, elsewhere}})
	waiting := NewMeasurement("mail", 1)
	waiting.Status = kms.MeasurementRetired
	put(t, s, kms.Outcome{Measurements: []kms.Measurement{waiting}})

	got, err := s.OldestApproved(t.Context(), "web", 9)
	require.NoError(t, err)
	assert.Equal(t, []kms.Measurement{first, second}, got)
	got, err = s.OldestApproved(t.Context(), "web", 1)
	require.NoError(t, err)
	assert.Equal(t, []kms.Measurement{first}, got)
	groups, err := s.MeasurementGroups(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []string{"db", "web"}, groups)
}

// What holds a measurement is an active machine of its group that booted it, announced
// it, or has not had so many boots that were approved after it.
func testHolding(t *testing.T, s Store) {
	at := func(minutes ...int) (list []time.Time) {
		for _, m := range minutes {
			list = append(list, Epoch().Add(time.Duration(m)*time.Minute))
		}
		return list
	}
	hold := kms.Hold{Group: "web", Digest: Digest("measurement", 7), Approved: at(10)[0], Boots: 2, Limit: 99}
	held := func() kms.Holding {
		t.Helper()
		got, err := s.Holding(t.Context(), hold)
		require.NoError(t, err)
		assert.Equal(t, got, stateOf(t, s, kms.Key{Hold: &hold}).Holding)
		return got
	}
	assert.Equal(t, kms.Holding{}, held())

	settled := NewMachine(1)
	settled.Floors = at(30, 11)
	put(t, s, kms.Outcome{Machine: settled})
	got := held()
	assert.True(t, got.Free())

	var want []string
	for n, change := range []func(*kms.Machine){
		func(m *kms.Machine) { m.Floors = nil },
		func(m *kms.Machine) { m.Floors = at(30) },
		func(m *kms.Machine) { m.Floors = at(30, 10) },
		func(m *kms.Machine) { m.Floors = []time.Time{at(30)[0], {}} },
		func(m *kms.Machine) { m.Measurement = hold.Digest },
		func(m *kms.Machine) { m.Expected = hold.Digest },
	} {
		m := NewMachine(n + 2)
		m.Floors = at(30, 11, 5)
		change(m)
		put(t, s, kms.Outcome{Machine: m})
		want = append(want, m.ID)
	}
	assert.ElementsMatch(t, want, held().Machines)
	hold.Limit = 2
	assert.Len(t, held().Machines, 2)
	for n := range want {
		m := NewMachine(n + 2)
		m.Floors, m.Status = nil, kms.MachineRevoked
		if n%2 == 0 {
			m.Status, m.Group = kms.MachineActive, "db"
		}
		put(t, s, kms.Outcome{Machine: m})
	}
	got = held()
	assert.True(t, got.Free())
}

// Machines are counted by what they pin, and those that lack a key are found; who is
// revoked is neither.
func testPins(t *testing.T, s Store) {
	former, current := Digest("pin", 1), Digest("pin", 2)
	var lacking []string
	for n, pins := range [][][32]byte{{former}, {current, former}, {current}, nil, {former}} {
		m := NewMachine(n + 1)
		m.Pins = pins
		switch n {
		case 0, 3:
			lacking = append(lacking, m.ID)
			m.Status = kms.MachinePending
		case 4:
			m.Status = kms.MachineRevoked
		}
		put(t, s, kms.Outcome{Machine: m})
	}
	slices.Sort(lacking)
	l := kms.Lacking{Key: current, Limit: 9}
	got, err := s.MachinesLacking(t.Context(), l, "")
	require.NoError(t, err)
	assert.Equal(t, lacking, got)
	assert.Equal(t, lacking, stateOf(t, s, kms.Key{Lacking: &l}).Lacking)
	l.Limit = 1
	got, err = s.MachinesLacking(t.Context(), l, lacking[0])
	require.NoError(t, err)
	assert.Equal(t, lacking[1:], got)
	counts, err := s.PinCounts(t.Context())
	require.NoError(t, err)
	assert.ElementsMatch(t, []kms.PinCount{
		{Pins: nil, Machines: 1},
		{Pins: [][32]byte{former}, Machines: 1},
		{Pins: [][32]byte{current, former}, Machines: 1},
		{Pins: [][32]byte{current}, Machines: 1},
	}, counts)
}

// A change adds and deletes service keys with its entry, or not at all.
func testChangedServiceKeys(t *testing.T, s Store) {
	former := kms.ServiceKey{Kind: kms.ServiceKeyIdentity, ID: "former", Public: []byte("1"), KeyringVersion: 1, Wrapped: "kw1.system.1.x", Created: Epoch()}
	current := former
	current.ID, current.Created = "current", Epoch().Add(time.Hour)
	addVersions(t, s, keyringVersion(kms.SystemKeyring, 1))
	put(t, s, kms.Outcome{NewServiceKeys: []kms.ServiceKey{former}})
	put(t, s, kms.Outcome{NewServiceKeys: []kms.ServiceKey{current}})
	keys, err := s.ServiceKeys(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []kms.ServiceKey{former, current}, keys)
	put(t, s, kms.Outcome{DropServiceKeys: []kms.ServiceKey{former}})
	assert.Equal(t, []kms.ServiceKey{current}, stateOf(t, s, kms.Key{ServiceKeys: true}).ServiceKeys)
	err = s.Transact(t.Context(), kms.Key{}, func(kms.State) (kms.Outcome, error) {
		return kms.Outcome{NewServiceKeys: []kms.ServiceKey{current}}, nil
	})
	require.ErrorIs(t, err, kms.ErrExists)
}
