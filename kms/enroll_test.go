package kms_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/exchange"
	"keywright.dev/test/sim"
)

func TestInterruptedEnrolmentBeginsAnew(t *testing.T) {
	f := newFixture(t)
	m := f.machine("web-17")
	require.NoError(t, m.Complete(t.Context(), f.guest()))
	first := m.Volumes[0]

	// Nothing reached the disk: the guest knows no volume id and no resume id.
	forget(m)
	require.NoError(t, m.Complete(t.Context(), f.guest()))
	assert.NotEqual(t, first.ID, m.Volumes[0].ID)
	assert.False(t, first.Key.Equal(m.Volumes[0].Key))
	assert.False(t, first.Recovery.Equal(m.Volumes[0].Recovery))
	volumes, err := f.store.Volumes(t.Context(), m.TPM.Machine(), "", 10)
	require.NoError(t, err)
	assert.Len(t, volumes, 2, "the first volumes are gone")
	old, err := f.store.Secrets(t.Context(), first.ID)
	require.NoError(t, err)
	assert.Empty(t, old)
}

func TestInterruptedEnrolmentResumes(t *testing.T) {
	f := newFixture(t)
	m := f.machine("web-17")
	require.NoError(t, m.Complete(t.Context(), f.guest()))
	first := m.Volumes[0]

	require.NoError(t, m.Complete(t.Context(), f.guest()), "the tokens are on the disk")
	assert.Equal(t, first.ID, m.Volumes[0].ID)
	assert.True(t, first.Key.Equal(m.Volumes[0].Key))

	_, err := m.Commit(t.Context(), f.guest())
	require.NoError(t, err)
	require.NoError(t, m.Enroll(t.Context(), f.guest()), "the commit's answer was lost")
	assert.True(t, first.Key.Equal(m.Volumes[0].Key))

	wrong := *m
	wrong.Volumes = append([]sim.Volume(nil), m.Volumes...)
	wrong.Volumes[1].Resume[0] ^= 1
	refused(t, kms.ReasonEnrolled, wrong.Complete(t.Context(), f.guest()))

	f.approve(m)
	refused(t, kms.ReasonEnrolled, m.Complete(t.Context(), f.guest()))
	_, err = m.Commit(t.Context(), f.guest())
	refused(t, kms.ReasonEnrolled, err)
}

func forget(m *sim.Machine) {
	for i := range m.Volumes {
		m.Volumes[i].ID, m.Volumes[i].Resume = "", [16]byte{}
	}
}

func TestPendingSecretIsNotReleased(t *testing.T) {
	f := newFixture(t)
	m := f.machine("web-17")
	require.NoError(t, m.Complete(t.Context(), f.guest()))
	_, err := f.ApproveMachine(t.Context(), operator(), m.TPM.Machine(), kms.Approval{EKHash: m.TPM.Machine()})
	require.ErrorContains(t, err, "has not finished its enrolment")
	m.Boot()
	_, err = m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonPending, err)
}

func TestEnrolmentNamesWhatIsWrong(t *testing.T) {
	f := newFixture(t)
	for name, test := range map[string]struct {
		reason kms.Reason
		change func(*sim.Machine)
	}{
		"no volume":       {kms.ReasonVolume, func(m *sim.Machine) { m.Volumes = nil }},
		"no UUID":         {kms.ReasonVolume, func(m *sim.Machine) { m.Volumes[0].UUID = "root" }},
		"one UUID twice":  {kms.ReasonVolume, func(m *sim.Machine) { m.Volumes[1].UUID = m.Volumes[0].UUID }},
		"another service": {kms.ReasonServiceKey, func(m *sim.Machine) { m.ServiceKey[0] ^= 1 }},
		"unmeasured boot": {kms.ReasonEventLog, func(m *sim.Machine) { m.TPM.PCRs = exchange.PCRValues{} }},
	} {
		t.Run(name, func(t *testing.T) {
			m := f.machine("web-17")
			test.change(m)
			refused(t, test.reason, m.Enroll(t.Context(), f.guest()))
		})
	}
}

func TestProposedNameIsCheckedAndReplaced(t *testing.T) {
	f := newFixture(t)
	m := f.machine("Web 17; rm -rf")
	require.NoError(t, m.Enroll(t.Context(), f.guest()))
	row, err := f.FindMachine(t.Context(), m.TPM.Machine())
	require.NoError(t, err)
	assert.Equal(t, "machine-"+m.TPM.Machine()[:8], row.Proposed)
	assert.Empty(t, row.Name)
}

func TestCommitNamesWhatIsWrong(t *testing.T) {
	f := newFixture(t)
	m := f.machine("web-17")
	require.NoError(t, m.Complete(t.Context(), f.guest()))
	good := append([]sim.Volume(nil), m.Volumes...)
	for name, test := range map[string]struct {
		reason kms.Reason
		change func()
	}{
		"a volume is missing":  {kms.ReasonVolume, func() { m.Volumes = m.Volumes[:1] }},
		"a volume of another":  {kms.ReasonVolume, func() { m.Volumes[1].ID = "0123" }},
		"one volume twice":     {kms.ReasonVolume, func() { m.Volumes[1] = m.Volumes[0] }},
		"claims are no claims": {kms.ReasonMalformed, func() { m.NextBoot = []byte("boot.application evil\n") }},
		"counters went back":   {kms.ReasonCounters, func() { m.TPM.Clock.ResetCount-- }},
	} {
		t.Run(name, func(t *testing.T) {
			m.Volumes, m.NextBoot = append([]sim.Volume(nil), good...), nil
			clock := m.TPM.Clock
			test.change()
			_, err := m.Commit(t.Context(), f.guest())
			refused(t, test.reason, err)
			m.TPM.Clock.ResetCount = clock.ResetCount
		})
	}
	m.Volumes, m.NextBoot = good, nil
	_, err := m.Commit(t.Context(), f.guest())
	require.NoError(t, err)
}
