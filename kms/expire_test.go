package kms_test

import (
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/audit"
	"keywright.dev/test/sim"
)

func (f *fixture) expire() {
	f.t.Helper()
	require.NoError(f.t, f.ExpirePending(f.t.Context()))
}

func (f *fixture) known(m *sim.Machine) bool {
	f.t.Helper()
	_, err := f.FindMachine(f.t.Context(), m.TPM.Machine())
	if err != nil {
		require.ErrorIs(f.t, err, kms.ErrNotFound)
	}
	return err == nil
}

func TestUnfinishedEnrolmentIsForgotten(t *testing.T) {
	f := newFixture(t)
	unfinished, waiting, active := f.machine("unfinished"), f.machine("waiting"), f.active("active")
	require.NoError(t, unfinished.Complete(t.Context(), f.guest()))
	require.NoError(t, waiting.Enroll(t.Context(), f.guest()))
	f.clock.Advance(23 * time.Hour)
	forget(unfinished)
	require.NoError(t, unfinished.Complete(t.Context(), f.guest()), "begun anew: that does not make it younger")
	f.expire()
	assert.True(t, f.known(unfinished))

	f.clock.Advance(time.Hour)
	f.expire()
	assert.False(t, f.known(unfinished))
	entry := f.lastEntry(unfinished.TPM.Machine())
	assert.Equal(t, kms.ActionExpire, entry.Action)
	assert.Equal(t, audit.ActorService, entry.Actor.Kind)
	_, err := unfinished.Commit(t.Context(), f.guest())
	refused(t, kms.ReasonMachine, err)
	require.NoError(t, unfinished.Enroll(t.Context(), f.guest()), "it may come again")

	f.clock.Advance(29*24*time.Hour - time.Hour)
	f.expire()
	assert.True(t, f.known(waiting))
	f.clock.Advance(time.Hour)
	f.expire()
	assert.False(t, f.known(waiting))
	platforms, err := f.store.Platforms(t.Context(), waiting.TPM.Machine())
	require.NoError(t, err)
	assert.Empty(t, platforms)
	volumes, err := f.store.Volumes(t.Context(), waiting.TPM.Machine(), "", 10)
	require.NoError(t, err)
	assert.Empty(t, volumes)

	f.clock.Advance(365 * 24 * time.Hour)
	f.expire()
	active.Boot()
	_, err = active.Unlock(t.Context(), f.guest())
	require.NoError(t, err, "what was approved stays")
}

// TestMeasurementOutlivesTheMachineItWasSeenOn forgets the machine that a boot
// was seen on first while another waits for the same one.
func TestMeasurementOutlivesTheMachineItWasSeenOn(t *testing.T) {
	f := newFixture(t)
	first, second := f.machine("first"), f.machine("second")
	require.NoError(t, first.Enroll(t.Context(), f.guest()))
	f.clock.Advance(20 * 24 * time.Hour)
	require.NoError(t, second.Enroll(t.Context(), f.guest()))
	f.clock.Advance(10 * 24 * time.Hour)
	f.expire()
	require.False(t, f.known(first))
	f.approve(second)
	second.Boot()
	_, err := second.Unlock(t.Context(), f.guest())
	require.NoError(t, err)
}

// TestAttack19PendingMachinesAreBounded fills the room for machines that wait,
// as anybody can who makes keys: those that are vouched for, and those that are
// known, go on, and the room is free again when its time is over.
func TestAttack19PendingMachinesAreBounded(t *testing.T) {
	f := newFixture(t)
	f.LimitPending(100)
	early, stale := f.machine("early"), f.machine("stale")
	require.NoError(t, early.Complete(t.Context(), f.guest()))
	require.NoError(t, stale.Complete(t.Context(), f.guest()))
	f.fillPending(100 - 2)
	late := f.machine("late")
	refused(t, kms.ReasonRate, late.Complete(t.Context(), f.guest()))
	require.NoError(t, early.Enroll(t.Context(), f.guest()))
	f.trust = "ca"
	vouched := f.machine("vouched")
	require.NoError(t, vouched.Enroll(t.Context(), f.guest()))
	f.approve(vouched)

	f.trust = kms.TrustByPerson
	f.clock.Advance(24 * time.Hour)
	refused(t, kms.ReasonRate, late.Complete(t.Context(), f.guest()))
	f.expire()
	require.NoError(t, late.Complete(t.Context(), f.guest()))
	assert.False(t, f.known(stale))
}

// fillPending writes machines that wait for an operator.
func (f *fixture) fillPending(n int) {
	f.t.Helper()
	for i := range n {
		id := sha256.Sum256(fmt.Append(nil, i))
		f.write(kms.Outcome{Machine: &kms.Machine{
			ID: hexOf(id), Group: "default", Status: kms.MachinePending, Committed: true, AKName: id[:], Created: f.clock.Now(),
		}})
	}
}
