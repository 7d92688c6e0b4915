package storetest

import (
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
