package storetest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
)

// predicted returns measurement n as it was predicted for a machine.
func predicted(machine string, n int) kms.Measurement {
	m := NewMeasurement("web", n)
	m.Status, m.Source, m.Machine = kms.MeasurementSeen, kms.SourcePredicted, machine
	return m
}

// What a machine announced is loaded where a key asks for it, and dropped row by
// row.
func testAnnounced(t *testing.T, s Store) {
	id := MachineID(1)
	attested, others := predicted(id, 3), predicted(MachineID(2), 4)
	attested.Source = kms.SourceAttested
	o := family(1)
	o.Measurements = []kms.Measurement{predicted(id, 1), predicted(id, 2), attested, others, NewMeasurement("web", 5)}
	o.Platforms = []kms.Platform{NewPlatform(id, 1), NewPlatform(id, 2)}
	put(t, s, o)
	put(t, s, kms.Outcome{Machine: NewMachine(2), Platforms: []kms.Platform{NewPlatform(MachineID(2), 1)}})

	key := kms.Key{Machine: id, Announced: true}
	got := stateOf(t, s, key)
	assert.Equal(t, o.Measurements[:2], got.Predicted)
	assert.Equal(t, []kms.Platform{o.Platforms[1], o.Platforms[0]}, got.Platforms, "newest first")
	plain := stateOf(t, s, kms.Key{Machine: id})
	assert.Empty(t, plain.Predicted)
	assert.Empty(t, plain.Platforms)

	put(t, s, kms.Outcome{
		Machine:          o.Machine,
		DropPlatforms:    [][32]byte{o.Platforms[0].Digest, Digest("platform", 99)},
		DropMeasurements: []kms.Measurement{o.Measurements[0], NewMeasurement("db", 2)},
	})
	got = stateOf(t, s, key)
	assert.Equal(t, o.Measurements[1:2], got.Predicted)
	assert.Equal(t, o.Platforms[1:], got.Platforms)
	assert.Len(t, stateOf(t, s, kms.Key{Machine: MachineID(2), Announced: true}).Platforms, 1, "another machine's stays")
}

// What is approved of the boots that machines announced is found for a page of
// them at once.
func testAnnouncements(t *testing.T, s Store) {
	known, waiting, nothing := NewMachine(1), NewMachine(2), NewMachine(3)
	known.Expected, waiting.Expected, nothing.Expected = Digest("measurement", 1), Digest("measurement", 2), Digest("measurement", 9)
	put(t, s, kms.Outcome{
		Machine: known, Platforms: []kms.Platform{NewPlatform(known.ID, 1)},
		Measurements: []kms.Measurement{NewMeasurement("web", 1), NewMeasurement("db", 9), predicted(waiting.ID, 2)},
	})
	unapproved := NewPlatform(waiting.ID, 2)
	unapproved.Approved = false
	put(t, s, kms.Outcome{Machine: waiting, Platforms: []kms.Platform{unapproved}})
	put(t, s, kms.Outcome{Machine: nothing})

	got, err := s.Announcements(context.Background(), []kms.Machine{*waiting, *known, *nothing, {ID: MachineID(4)}})
	require.NoError(t, err)
	approved := NewPlatform(known.ID, 1)
	approved.Claims, unapproved.Claims = nil, nil
	assert.Equal(t, []kms.Announcement{
		{Measurement: kms.MeasurementSeen, Platform: &unapproved},
		{Measurement: kms.MeasurementApproved, Platform: &approved},
		{}, {},
	}, got)
}
