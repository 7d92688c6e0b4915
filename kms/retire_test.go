package kms_test

import (
	"encoding/hex"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/test/sim"
)

// settled restarts a machine with a recorded boot so often, each a good one: it gets
// its keys and announces that boot for the next time.
func (f *fixture) settled(m *sim.Machine, boot string, times int) {
	f.t.Helper()
	m.Log = recordedBoot(f.t, boot)
	for range times {
		f.clock.Advance(time.Hour)
		f.unlock(m)
		f.clock.Advance(time.Minute)
		f.stage(m, boot, "grub-a", "grub-oldkernel")
	}
}

// newer has machines announce a boot of another kernel, which is approved, and returns
// the measurements of the old one and of the new one.
func (f *fixture) newer(machines ...*sim.Machine) (old, current string) {
	f.t.Helper()
	row, err := f.FindMachine(f.t.Context(), machines[0].TPM.Machine())
	require.NoError(f.t, err)
	f.clock.Advance(time.Hour)
	for _, m := range machines {
		current = f.stage(m, "grub-oldkernel", "grub-a").Boots[0].Measurement
	}
	_, err = f.ApproveMeasurement(f.t.Context(), operator(), current, "")
	require.NoError(f.t, err)
	return hex.EncodeToString(row.Measurement[:]), current
}

func (f *fixture) retire(ref string, boots int) error {
	f.t.Helper()
	_, err := f.RetireMeasurement(f.t.Context(), operator(), ref, "", boots)
	return err
}

// A measurement is retired once every machine of the group had its good boots of newer
// ones. Who comes back with it is held, told why, and let in by an approval.
func TestMeasurementsRetireAfterGoodBoots(t *testing.T) {
	f := newFixture(t)
	one, other := f.booted("web-1"), f.booted("web-2")
	old, current := f.newer(one, other)
	f.settled(one, "grub-oldkernel", 3)
	f.settled(other, "grub-oldkernel", 2)
	err := f.retire(old, 3)
	require.ErrorContains(t, err, "not every active machine of group default")
	require.ErrorContains(t, err, other.TPM.Machine())
	assert.NotContains(t, err.Error(), one.TPM.Machine())

	f.settled(other, "grub-oldkernel", 1)
	dry := operator()
	dry.DryRun = true
	_, err = f.RetireMeasurement(t.Context(), dry, old, "", 3)
	require.NoError(t, err)
	require.NoError(t, f.retire(old, 3))
	entry := f.latest(kms.ActionRetireMeasurement)
	assert.Equal(t, "measurement/"+old, entry.Object)
	require.ErrorContains(t, f.retire(old, 3), "it is retired")
	require.ErrorContains(t, f.retire(current, 1), "not every active machine", "the last good one stays")

	f.clock.Advance(time.Hour)
	announced := f.stage(one, "grub-oldkernel", "grub-a")
	assert.Empty(t, announced.Boots[0].Code)
	assert.Contains(t, announced.Boots[1].Detail, "was retired in group default")
	one.Log = recordedBoot(t, "grub-a")
	one.Boot()
	_, err = one.Unlock(t.Context(), f.guest())
	assert.Contains(t, refused(t, kms.ReasonMeasurement, err).Detail, "was retired in group default")
	explained, err := f.Explain(t.Context(), one.TPM.Machine())
	require.NoError(t, err)
	assert.Contains(t, explained.Summary, "was retired")
	assert.Contains(t, explained.Advice, "keywright measurement approve "+old)

	_, err = f.ApproveMeasurement(t.Context(), operator(), old, "")
	require.NoError(t, err)
	f.unlock(one)
}

// That keys were released shows nothing: a kernel that crashes behind that is not good.
func TestMeasurementsAreKeptWhileTheNewOneCrashes(t *testing.T) {
	f := newFixture(t)
	m := f.booted("web-17")
	old, _ := f.newer(m)
	m.Log = recordedBoot(t, "grub-oldkernel")
	for range 5 {
		f.clock.Advance(time.Hour)
		f.unlock(m)
	}
	require.ErrorContains(t, f.retire(old, 1), "not every active machine")
	f.clock.Advance(time.Minute)
	for range 3 { // of one boot
		f.stage(m, "grub-oldkernel")
	}
	require.ErrorContains(t, f.retire(old, 2), "not every active machine")
	require.NoError(t, f.retire(old, 1))
}

// A machine that goes back to an old kernel keeps it, and so does one that is about to.
func TestMeasurementsAreKeptForWhoGoesBack(t *testing.T) {
	f := newFixture(t)
	m := f.booted("web-17")
	old, _ := f.newer(m)
	f.settled(m, "grub-oldkernel", 2)
	f.settled(m, "grub-a", 1)
	f.settled(m, "grub-oldkernel", 1)
	require.ErrorContains(t, f.retire(old, 2), "not every active machine")
	f.settled(m, "grub-oldkernel", 1)
	f.stage(m, "grub-a", "grub-oldkernel")
	require.ErrorContains(t, f.retire(old, 2), "not every active machine", "announced")
	f.stage(m, "grub-oldkernel", "grub-a")
	require.NoError(t, f.retire(old, 2))
}

// What no machine has booted yet is newer, and what no machine boots any more shows
// nothing.
func TestMeasurementsAreKeptWithoutMachines(t *testing.T) {
	f := newFixture(t)
	m := f.booted("web-17")
	f.settled(m, "grub-a", 3)
	old, next := f.newer(m)
	require.ErrorContains(t, f.retire(next, 1), "not every active machine", "it waits for its first boot")
	require.ErrorContains(t, f.retire(old, 11), "1 to 10")
	_, _, err := f.RevokeMachine(t.Context(), operator(), "web-17", "")
	require.NoError(t, err)
	require.ErrorContains(t, f.retire(old, 1), "no active machine")
}

// Boots count in the group of their measurements.
func TestMeasurementsAreKeptForWhoCameFromAnotherGroup(t *testing.T) {
	f := newFixture(t)
	stays, moves := f.booted("web-1"), f.booted("web-2")
	old, current := f.newer(stays, moves)
	f.settled(stays, "grub-oldkernel", 1)
	f.settled(moves, "grub-oldkernel", 3)
	_, err := f.ApproveMachine(t.Context(), operator(), "web-2", kms.Approval{Group: "db", Measurement: current})
	require.NoError(t, err)
	_, err = f.ApproveMeasurement(t.Context(), operator(), old, "db")
	require.NoError(t, err)
	f.clock.Advance(time.Hour)
	_, err = f.RetireMeasurement(t.Context(), operator(), old, "db", 1)
	require.ErrorContains(t, err, moves.TPM.Machine())
	require.NoError(t, f.retireIn("default", old), "who moved holds nothing where it was")
}

func (f *fixture) retireIn(group, ref string) error {
	f.t.Helper()
	_, err := f.RetireMeasurement(f.t.Context(), operator(), ref, group, 1)
	return err
}
