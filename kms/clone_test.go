package kms_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
)

func TestAttack14TPMIsResetAndReplayed(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	_, err := m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)
	// The TPM alone is reset and extended with the same log: PCRs are right, and
	// the boot after is one like any other. What it cannot do is hide.
	m.Boot()
	_, err = m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)
	row, err := f.FindMachine(t.Context(), "web-17")
	require.NoError(t, err)
	assert.Equal(t, m.TPM.Clock.ResetCount, row.Counters.ResetCount)

	m.TPM.Clock.ResetCount--
	_, err = m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonCounters, err)
}

func TestAttack15CloneOfTheTPM(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	snapshot := *m.TPM
	m.Boot()
	_, err := m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)

	original := m.TPM
	m.TPM = &snapshot
	_, err = m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonCounters, err)
	entry := f.lastEntry(original.Machine())
	require.NotEmpty(t, entry.Facts)
	assert.Equal(t, "tpm.counters", entry.Facts[0].Name)
	assert.NotEqual(t, entry.Facts[0].Was, entry.Facts[0].Is)

	row, err := f.FindMachine(t.Context(), "web-17")
	require.NoError(t, err)
	assert.Equal(t, original.Clock.ResetCount, row.Counters.ResetCount, "a regression moves no counter")
	m.TPM = original
	m.Boot()
	_, err = m.Unlock(t.Context(), f.guest())
	require.NoError(t, err, "the original goes on")
}

// TestAttack15CloneOfAMachineWithoutKeys lets the clone ask while the machine
// gets nothing anyway: its counters must not become the ones to beat.
func TestAttack15CloneOfAMachineWithoutKeys(t *testing.T) {
	f := newFixture(t)
	m := f.machine("web-17")
	clone := *m.TPM
	original := m.TPM
	m.Boot()
	asClone := func(t *testing.T, reason kms.Reason) {
		t.Helper()
		before := f.row(m).Counters
		m.TPM = &clone
		_, err := m.Unlock(t.Context(), f.guest())
		refused(t, reason, err)
		m.TPM = original
		assert.Equal(t, before, f.row(m).Counters)
	}
	t.Run("enrolling", func(t *testing.T) {
		require.NoError(t, m.Complete(t.Context(), f.guest()))
		again := *m
		again.TPM, again.Volumes = &clone, slices.Clone(m.Volumes)
		forget(&again)
		refused(t, kms.ReasonCounters, again.Complete(t.Context(), f.guest()))
	})
	t.Run("pending", func(t *testing.T) {
		_, err := m.Commit(t.Context(), f.guest())
		require.NoError(t, err)
		asClone(t, kms.ReasonPending)
		f.approve(m)
		m.TPM = &clone
		_, err = m.Unlock(t.Context(), f.guest())
		refused(t, kms.ReasonCounters, err)
		m.TPM = original
	})
	t.Run("revoked", func(t *testing.T) {
		_, _, err := f.RevokeMachine(t.Context(), operator(), "web-17", "")
		require.NoError(t, err)
		asClone(t, kms.ReasonRevoked)
	})
}
