package kms_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
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

// TestApprovalIsOfWhatTheOperatorSaw has a machine announce another boot, and
// another platform, behind the back of the operator who looks at it.
func TestApprovalIsOfWhatTheOperatorSaw(t *testing.T) {
	for name, pcr := range map[string]uint32{"measurement": 0, "platform": 1} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			m := f.machine("web-17")
			require.NoError(t, m.Enroll(t.Context(), f.guest()))
			saw := f.row(m)
			a := kms.Approval{
				EKHash:               m.TPM.Machine(),
				AnnouncedMeasurement: hexOf(saw.Expected), AnnouncedPlatform: hexOf(saw.ExpectedPlatform),
			}
			var err error
			m.Log, err = m.Log.With(pcr, 0x80000002, []byte("another"))
			require.NoError(t, err)
			m.Boot()
			_, err = m.Commit(t.Context(), f.guest())
			require.NoError(t, err)

			_, err = f.ApproveMachine(t.Context(), operator(), "web-17", a)
			require.ErrorContains(t, err, "announced another "+name)
			assert.Equal(t, kms.MachinePending, f.row(m).Status)
			rows, err := f.store.ApprovedMeasurements(t.Context(), "default", 10)
			require.NoError(t, err)
			assert.Empty(t, rows)

			saw = f.row(m)
			a.AnnouncedMeasurement, a.AnnouncedPlatform = hexOf(saw.Expected), hexOf(saw.ExpectedPlatform)
			approved, err := f.ApproveMachine(t.Context(), operator(), "web-17", a)
			require.NoError(t, err)
			assert.Equal(t, saw.Expected, approved.ApprovedMeasurement)
			assert.Equal(t, saw.ExpectedPlatform, approved.ApprovedPlatform)
			m.Boot()
			_, err = m.Unlock(t.Context(), f.guest())
			require.NoError(t, err)
		})
	}
}
