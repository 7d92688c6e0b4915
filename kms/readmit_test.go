package kms_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/audit"
	"keywright.dev/test/sim"
)

// restored returns a machine that booted twice and was then restored from a
// snapshot of the time before, its vTPM included, and booted.
func (f *fixture) restored(name string) *sim.Machine {
	f.t.Helper()
	m := f.active(name)
	snapshot := *m.TPM
	for range 2 {
		m.Boot()
		_, err := m.Unlock(f.t.Context(), f.guest())
		require.NoError(f.t, err)
	}
	*m.TPM = snapshot
	m.Boot()
	return m
}

func (f *fixture) readmit(m *sim.Machine, r kms.Readmission) {
	f.t.Helper()
	_, err := f.ReadmitMachine(f.t.Context(), operator(), m.TPM.Machine(), r)
	require.NoError(f.t, err)
}

func (f *fixture) expectRestore(m *sim.Machine, wait time.Duration) {
	f.t.Helper()
	_, err := f.ExpectRestore(f.t.Context(), operator(), m.TPM.Machine(), f.clock.Now().Add(wait), "a test")
	require.NoError(f.t, err)
}

// alarms returns the open alarms of a kind.
func (f *fixture) alarms(kind kms.Alarm) int64 {
	f.t.Helper()
	counts, err := f.store.Counts(f.t.Context())
	require.NoError(f.t, err)
	return counts.Alarms[kind]
}

// TestRestoredMachineFollowsTheAdvice restores a machine from a snapshot.
func TestRestoredMachineFollowsTheAdvice(t *testing.T) {
	f := newFixture(t)
	m := f.restored("web-17")
	_, err := m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonCounters, err)
	assert.EqualValues(t, 1, f.alarms(kms.AlarmCounters))
	x, err := f.Explain(t.Context(), "web-17")
	require.NoError(t, err)
	assert.Contains(t, x.Advice, "keywright machine readmit web-17")

	before := f.row(m).Counters
	f.readmit(m, kms.Readmission{Reason: "restored from the backup of Monday"})
	entry := f.lastEntry(m.TPM.Machine())
	assert.Equal(t, kms.ActionReadmit, entry.Action)
	assert.Equal(t, "restored from the backup of Monday", factOf(t, entry, "reason").Is)
	assert.Zero(t, f.alarms(kms.AlarmCounters))

	_, err = m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)
	entry = f.lastEntry(m.TPM.Machine())
	assert.Equal(t, kms.ActionRelease, entry.Action)
	assert.Equal(t, kms.ActionReadmit, factOf(t, entry, "tpm.baseline").Is)
	row := f.row(m)
	assert.Less(t, row.Counters.ResetCount, before.ResetCount)
	assert.Len(t, row.Releases, 1, "releases of a later time do not count")
	assert.True(t, row.ReadmitUntil.IsZero())
	m.Boot()
	_, err = m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)
	assert.NotContains(t, namesOf(f.lastEntry(m.TPM.Machine())), "tpm.baseline")
}

func namesOf(e audit.Entry) []string {
	var names []string
	for _, f := range e.Facts {
		names = append(names, f.Name)
	}
	return names
}

// TestAttack15ReadmissionIsForOneRelease rolls a machine back again after it was
// readmitted.
func TestAttack15ReadmissionIsForOneRelease(t *testing.T) {
	f := newFixture(t)
	m := f.restored("web-17")
	f.readmit(m, kms.Readmission{})
	older := *m.TPM
	older.Clock.ResetCount--
	_, err := m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)

	newer := m.TPM
	m.TPM = &older
	_, err = m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonCounters, err)
	m.TPM = newer
	f.readmit(m, kms.Readmission{})
	m.Boot()
	_, err = m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)
	m.TPM = &older
	_, err = m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonCounters, err) // a release whose counters went on uses it up as well

	f.readmit(m, kms.Readmission{})
	f.clock.Advance(7 * 24 * time.Hour)
	_, err = m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonCounters, err) // it does not stand open for ever
}

// TestRefusedBootUsesNothingUp boots what is not approved: who has a copy of the
// TPM but not of the boot can't use up what is meant for the machine.
func TestRefusedBootUsesNothingUp(t *testing.T) {
	f := newFixture(t)
	m := f.restored("web-17")
	f.readmit(m, kms.Readmission{})
	before := f.row(m)
	good := m.Log
	m.Log = recordedBoot(t, "ovmf-secureboot-uki")
	m.Boot()
	_, err := m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonMeasurement, err)
	assert.Equal(t, before.Counters, f.row(m).Counters)
	assert.Equal(t, before.ReadmitUntil, f.row(m).ReadmitUntil)
	m.TPM.Clock.ResetCount--
	m.Log = good
	m.Boot()
	_, err = m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)
}

func TestReadmissionLiftsARevocation(t *testing.T) {
	f := newFixture(t)
	m := f.restored("web-17")
	_, _, err := f.RevokeMachine(t.Context(), operator(), "web-17", "lost")
	require.NoError(t, err)
	_, err = m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonRevoked, err)
	dry := operator()
	dry.DryRun = true
	row, err := f.ReadmitMachine(t.Context(), dry, "web-17", kms.Readmission{})
	require.NoError(t, err)
	assert.Equal(t, kms.MachineActive, row.Status)
	_, err = m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonRevoked, err) // it was a dry run
	f.readmit(m, kms.Readmission{Reason: "found"})
	entry := f.lastEntry(m.TPM.Machine())
	assert.Equal(t, audit.Fact{Name: "status", Was: "revoked", Is: "active"}, factOf(t, entry, "status"))
	_, err = m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)

	waiting := f.machine("web-18")
	require.NoError(t, waiting.Enroll(t.Context(), f.guest()))
	_, _, err = f.RevokeMachine(t.Context(), operator(), waiting.TPM.Machine(), "")
	require.NoError(t, err)
	f.readmit(waiting, kms.Readmission{})
	assert.Equal(t, kms.MachinePending, f.row(waiting).Status, "it was never approved")
}

func TestExpectedRestoreIsForOneRegression(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	_, err := m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)
	snapshot := *m.TPM
	f.expectRestore(m, 2*time.Hour)
	entry := f.lastEntry(m.TPM.Machine())
	assert.Equal(t, kms.ActionExpectRestore, entry.Action)
	assert.Equal(t, "2026-01-02T05:04:05Z", factOf(t, entry, "restore.until").Is)
	for range 3 {
		m.Boot()
		_, err := m.Unlock(t.Context(), f.guest())
		require.NoError(t, err)
	}
	assert.False(t, f.row(m).RestoreUntil.IsZero(), "boots that go on use up nothing")

	restore := func() {
		*m.TPM = snapshot
		m.Boot()
	}
	restore()
	_, err = m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)
	assert.Equal(t, kms.ActionExpectRestore, factOf(t, f.lastEntry(m.TPM.Machine()), "tpm.baseline").Is)
	assert.True(t, f.row(m).RestoreUntil.IsZero())
	m.Boot()
	_, err = m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)
	restore()
	_, err = m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonCounters, err)
}

func TestExpectedRestoreExpires(t *testing.T) {
	f := newFixture(t)
	m := f.restored("web-17")
	f.expectRestore(m, time.Hour)
	f.clock.Advance(time.Hour)
	_, err := m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonCounters, err)
	f.expectRestore(m, time.Hour)
	f.clock.Advance(time.Hour - time.Second)
	_, err = m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)
}

func TestExpectedRestoreIsBounded(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	var usage *kms.UsageError
	for _, wait := range []time.Duration{0, -time.Hour, 7*24*time.Hour + time.Second} {
		_, err := f.ExpectRestore(t.Context(), operator(), "web-17", f.clock.Now().Add(wait), "")
		require.ErrorAs(t, err, &usage)
	}
	f.expectRestore(m, 7*24*time.Hour)
	_, _, err := f.RevokeMachine(t.Context(), operator(), "web-17", "")
	require.NoError(t, err)
	_, err = f.ExpectRestore(t.Context(), operator(), "web-17", f.clock.Now().Add(time.Hour), "")
	var state *kms.StateError
	require.ErrorAs(t, err, &state)
}

// newDisk gives a machine disks that nobody enrolled; its TPM stays.
func newDisk(t *testing.T, f *fixture, m *sim.Machine) []sim.Volume {
	t.Helper()
	old := m.Volumes
	other := f.machine(m.Name)
	m.Volumes = other.Volumes
	return old
}

func TestMachineWithANewDiskEnrollsAgain(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	_, err := m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)
	old := newDisk(t, f, m)
	m.Boot()
	refusal := refused(t, kms.ReasonEnrolled, m.Complete(t.Context(), f.guest()))
	assert.Contains(t, refusal.Detail, "a copied vTPM?")
	x, err := f.Explain(t.Context(), "web-17")
	require.NoError(t, err)
	assert.Contains(t, x.Advice, "keywright machine readmit web-17 --re-enroll")

	f.readmit(m, kms.Readmission{Reenroll: true})
	assert.Equal(t, kms.MachineActive, f.row(m).Status, "nothing changes before it enrols")
	m.TPM.Clock.ResetCount = 1 // restored with its disk
	require.NoError(t, m.Complete(t.Context(), f.guest()))
	entry := f.lastEntry(m.TPM.Machine())
	assert.Equal(t, audit.Fact{Name: "status", Was: "active", Is: "pending"}, factOf(t, entry, "status"))
	assert.Contains(t, []string{old[0].ID, old[1].ID}, factOf(t, entry, "volume.former").Is)
	forget(m)
	require.NoError(t, m.Enroll(t.Context(), f.guest()), "it may begin anew")
	row := f.row(m)
	assert.Equal(t, "web-17", row.Name)
	assert.True(t, row.ReenrollUntil.IsZero())
	f.clock.Advance(31 * 24 * time.Hour)
	require.NoError(t, f.ExpirePending(t.Context()))
	assert.Equal(t, kms.MachinePending, f.row(m).Status, "what an operator named is not forgotten")
	again := *m
	again.Volumes = slices.Clone(m.Volumes)
	forget(&again)
	refused(t, kms.ReasonEnrolled, again.Complete(t.Context(), f.guest()))

	m.Boot()
	_, err = m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonPending, err)
	f.approve(m)
	assert.Equal(t, "web-17", f.row(m).Name)
	m.Boot()
	_, err = m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)

	volumes, err := f.store.Volumes(t.Context(), m.TPM.Machine(), "", 10)
	require.NoError(t, err)
	former := 0
	for _, v := range volumes {
		if v.Status == kms.VolumeFormer {
			former++
			secrets, err := f.store.Secrets(t.Context(), v.ID)
			require.NoError(t, err)
			assert.Len(t, secrets, 1, "it is kept")
		}
	}
	assert.Equal(t, 2, former)
	assert.Len(t, volumes, 4)
	m.Volumes = old
	m.Boot()
	_, err = m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonVolume, err)
}

// A machine that left has the same disk, with the same LUKS UUID.
func TestMachineThatLeftEnrollsAgain(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	_, _, err := f.RevokeMachine(t.Context(), operator(), "web-17", "")
	require.NoError(t, err)
	forget(m)
	refused(t, kms.ReasonRevoked, m.Complete(t.Context(), f.guest()))
	f.readmit(m, kms.Readmission{Reenroll: true})
	_, err = m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonRevoked, err) // until it enrols it stays what it is
	require.NoError(t, m.Enroll(t.Context(), f.guest()))
	assert.Zero(t, f.alarms(kms.AlarmCopied), "its own volume key on its own disk")
	f.approve(m)
	m.Boot()
	_, err = m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)
}

// A machine that was revoked while it waited shows resume ids that are still open:
// they are of what it was before.
func TestRevokedEnrolmentBeginsAnew(t *testing.T) {
	f := newFixture(t)
	m := f.machine("web-17")
	require.NoError(t, m.Enroll(t.Context(), f.guest()))
	old := m.Volumes[0].ID
	_, _, err := f.RevokeMachine(t.Context(), operator(), m.TPM.Machine(), "")
	require.NoError(t, err)
	f.readmit(m, kms.Readmission{Reenroll: true})
	require.NoError(t, m.Complete(t.Context(), f.guest()))
	assert.NotEqual(t, old, m.Volumes[0].ID)
	assert.Equal(t, kms.MachinePending, f.row(m).Status)
}

// The releases of a boot that was undone are not those of the boot that comes
// after it, even where the TPM counted no reset between them.
func TestReadmissionForgetsReleasesOfALaterTime(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	snapshot := *m.TPM
	for range 5 {
		_, err := m.Unlock(t.Context(), f.guest())
		require.NoError(t, err)
		m.TPM.PCRs.Set(15, [32]byte{})
	}
	*m.TPM = snapshot
	f.readmit(m, kms.Readmission{})
	_, err := m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)
	assert.Len(t, f.row(m).Releases, 1)
}

func TestFormerVolumesAreBounded(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	var out kms.Outcome
	for i := range 256 {
		out.Volumes = append(out.Volumes, kms.Volume{ID: fmt.Sprintf("%032x", i), Machine: m.TPM.Machine(), Status: kms.VolumeFormer})
	}
	require.NoError(t, f.store.Transact(t.Context(), kms.Key{}, func(kms.State) (kms.Outcome, error) { return out, nil }))
	_, err := f.ReadmitMachine(t.Context(), operator(), "web-17", kms.Readmission{Reenroll: true})
	var state *kms.StateError
	require.ErrorAs(t, err, &state)
	assert.Contains(t, state.Text, "256 former volumes")
}

func TestLeaveToEnrollAgainExpires(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	f.readmit(m, kms.Readmission{Reenroll: true})
	f.clock.Advance(24 * time.Hour)
	forget(m)
	refused(t, kms.ReasonEnrolled, m.Complete(t.Context(), f.guest()))
	f.readmit(m, kms.Readmission{Reenroll: true})
	require.NoError(t, m.Complete(t.Context(), f.guest()))
	f.clock.Advance(24 * time.Hour)
	require.NoError(t, m.Complete(t.Context(), f.guest()), "it shows its resume ids")
	forget(m)
	refused(t, kms.ReasonEnrolled, m.Complete(t.Context(), f.guest()))
}
