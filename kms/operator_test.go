package kms_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
)

// A dry run refuses what would be refused, and changes nothing.
func TestDryRun(t *testing.T) {
	f := newFixture(t)
	m := f.machine("web-17")
	require.NoError(t, m.Enroll(t.Context(), f.guest()))
	try, id := operator(), m.TPM.Machine()
	try.DryRun = true
	before, err := f.store.Counts(t.Context())
	require.NoError(t, err)

	_, err = f.ApproveMachine(t.Context(), try, id, kms.Approval{})
	require.ErrorContains(t, err, "--ek-hash")
	would, err := f.ApproveMachine(t.Context(), try, id, kms.Approval{EKHash: id})
	require.NoError(t, err)
	assert.Equal(t, kms.MachineActive, would.Status)
	_, _, err = f.RevokeMachine(t.Context(), try, id, "")
	require.NoError(t, err)
	row, err := f.FindMachine(t.Context(), id)
	require.NoError(t, err)
	_, err = f.ApproveMeasurement(t.Context(), try, hexOf(row.Expected), "web")
	require.NoError(t, err)
	_, err = f.RenameMachine(t.Context(), try, id, "No Name")
	require.ErrorContains(t, err, "is not one")

	assert.Equal(t, kms.MachinePending, row.Status)
	after, err := f.store.Counts(t.Context())
	require.NoError(t, err)
	assert.Equal(t, before, after)
}

// Anybody can propose a name, so whoever changes something does not go by it.
func TestProposedNameIsForApprovalOnly(t *testing.T) {
	f := newFixture(t)
	pending := f.machine("web-20")
	require.NoError(t, pending.Enroll(t.Context(), f.guest()))
	_, err := f.FindMachine(t.Context(), "web-20")
	require.NoError(t, err)
	var refused *kms.StateError
	_, err = f.RenameMachine(t.Context(), operator(), "web-20", "web-21")
	require.ErrorAs(t, err, &refused)
	_, _, err = f.RevokeMachine(t.Context(), operator(), "web-20", "")
	require.ErrorAs(t, err, &refused)
	assert.Contains(t, refused.Text, pending.TPM.Machine())
	_, err = f.SubmitMeasurement(t.Context(), operator(), "machine/web-20", "", filesOf(t, "next kernel"))
	require.ErrorAs(t, err, &refused)

	_, _, err = f.RevokeMachine(t.Context(), operator(), pending.TPM.Machine()[:12], "a stranger")
	require.NoError(t, err)
	_, err = f.FindMachine(t.Context(), "web-20")
	require.ErrorIs(t, err, kms.ErrNotFound, "it waits for no approval any more")
}

// What can't be approved yet is not advised to be.
func TestExplainUnfinishedEnrolment(t *testing.T) {
	f := newFixture(t)
	m := f.machine("web-17")
	require.NoError(t, m.Complete(t.Context(), f.guest()))
	x, err := f.Explain(t.Context(), "web-17")
	require.NoError(t, err)
	assert.Contains(t, x.Advice, "keywright-unlock enroll")
	m.Boot()
	_, err = m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonPending, err)
	x, err = f.Explain(t.Context(), "web-17")
	require.NoError(t, err)
	assert.Contains(t, x.Advice, "keywright-unlock enroll")
	assert.NotContains(t, x.Advice, "approve")
}
