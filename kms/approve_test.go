package kms_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
)

// TestApprovalTakesTheMeasurementOfItsGroup approves a machine into a group with
// a measurement that another group knows as well.
func TestApprovalTakesTheMeasurementOfItsGroup(t *testing.T) {
	f := newFixture(t)
	expected := hexOf(f.row(f.active("web-17")).Expected)
	_, err := f.ApproveMeasurement(t.Context(), operator(), expected, "web")
	require.NoError(t, err)
	for name, group := range map[string]string{"web-18": "web", "web-19": "db"} {
		m := f.machine(name)
		require.NoError(t, m.Enroll(t.Context(), f.guest()))
		_, err = f.ApproveMachine(t.Context(), operator(), name, kms.Approval{EKHash: m.TPM.Machine(), Group: group, Measurement: expected[:3]})
		require.ErrorContains(t, err, "at least 6 characters")
		_, err = f.ApproveMachine(t.Context(), operator(), name, kms.Approval{EKHash: m.TPM.Machine(), Group: group, Measurement: expected[:16]})
		require.NoError(t, err)
		m.Boot()
		_, err = m.Unlock(t.Context(), f.guest())
		require.NoError(t, err)
	}
}
