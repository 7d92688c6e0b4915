package kms_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/audit"
)

// TestAttack14TPMIsResetAndReplayed resets the TPM alone and extends it with the
// log of an approved boot. The PCRs are right, so that the keys are released: that
// is conceded. What cannot be done is to hide it: the reset is counted, the entry
// of the release shows it, and it never goes away.
func TestAttack14TPMIsResetAndReplayed(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	_, err := m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)
	booted := f.row(m).Counters
	_, err = m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonReleased, err) // without a reset there is nothing to be had

	m.TPM.Boot(m.Log) // the machine goes on
	_, err = m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)
	counters := factOf(t, f.lastEntry(m.TPM.Machine()), "tpm.counters")
	assert.Contains(t, counters.Was, fmt.Sprintf("reset %d,", booted.ResetCount))
	assert.Contains(t, counters.Is, fmt.Sprintf("reset %d,", booted.ResetCount+1))
	assert.Equal(t, booted.ResetCount+1, f.row(m).Counters.ResetCount)
	_, err = m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonReleased, err) // one release for each reset

	m.Boot()
	_, err = m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)
	counters = factOf(t, f.lastEntry(m.TPM.Machine()), "tpm.counters")
	assert.Contains(t, counters.Is, fmt.Sprintf("reset %d,", booted.ResetCount+2), "its second boot is its third reset")

	m.TPM.Clock.ResetCount-- // as if there had been none
	_, err = m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonCounters, err)
}

func factOf(t *testing.T, entry audit.Entry, name string) audit.Fact {
	t.Helper()
	i := slices.IndexFunc(entry.Facts, func(f audit.Fact) bool { return f.Name == name })
	require.GreaterOrEqual(t, i, 0, "the entry has no fact %s", name)
	return entry.Facts[i]
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
