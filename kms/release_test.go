package kms_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
	"keywright.dev/kms/audit"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/policy"
)

func TestMachineUnlocksItself(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	enrolled := m.Volumes[0].Key.Clone()

	release, err := m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)
	assert.True(t, enrolled.Equal(m.Volumes[0].Key), "the key of the enrolment")
	assert.Equal(t, m.Volumes[1].Identity, release.Secrets[1].Identity)

	entry, err := f.Log.Verifier().Verify(m.Receipt)
	require.NoError(t, err)
	assert.Equal(t, audit.Allowed, entry.Outcome)
	assert.Equal(t, entry, f.lastEntry(m.TPM.Machine()))
	assert.NotEmpty(t, entry.Policies)

	m.Boot()
	_, err = m.Unlock(t.Context(), f.guest())
	require.NoError(t, err, "the next boot")
}

func TestLostAnswerCanBeAskedForAgain(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	for range 4 {
		r, err := m.PrepareRelease(t.Context(), f.guest())
		require.NoError(t, err)
		a, err := r.Attest()
		require.NoError(t, err)
		_, err = f.guest().Release(t.Context(), api.ReleaseRequest{Attested: a})
		require.NoError(t, err)
	}
	_, err := m.Unlock(t.Context(), f.guest())
	require.NoError(t, err, "the fifth")
	m.TPM.PCRs.Set(15, [32]byte{})
	_, err = m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonRate, err)

	m.TPM.Clock.Clock += uint64(11 * time.Minute / time.Millisecond)
	_, err = m.Unlock(t.Context(), f.guest())
	require.NoError(t, err, "after ten minutes of TPM clock")
}

func TestOneReleaseABoot(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	_, err := m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)
	_, err = m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonReleased, err)

	m.Boot()
	m.TPM.Extend(15, exchange.NoReleaseEvent())
	_, err = m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonReleased, err)
}

func TestRefusalIsRecordedAndSpendsTheChallenge(t *testing.T) {
	f := newFixture(t)
	m := f.machine("web-17")
	require.NoError(t, m.Enroll(t.Context(), f.guest()))
	m.Boot()
	r, err := m.PrepareRelease(t.Context(), f.guest())
	require.NoError(t, err)
	_, err = r.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonPending, err)

	entry := f.lastEntry(m.TPM.Machine())
	assert.Equal(t, audit.Refused, entry.Outcome)
	assert.Equal(t, "machine_pending", entry.Code)
	row, err := f.FindMachine(t.Context(), m.TPM.Machine())
	require.NoError(t, err)
	assert.Equal(t, m.TPM.Clock.ResetCount, row.Counters.ResetCount)

	f.approve(m)
	_, err = r.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonChallenge, err)
}

func TestRevocationTakesEffectAtOnce(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	_, err := m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)
	m.Boot()
	r, err := m.PrepareRelease(t.Context(), f.guest())
	require.NoError(t, err)
	_, opens, err := f.RevokeMachine(t.Context(), operator(), "web-17", "stolen")
	require.NoError(t, err)
	assert.Len(t, opens, 2)
	_, err = r.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonRevoked, err)
	assert.NotContains(t, f.lastEntry(m.TPM.Machine()).Facts, "stolen")
}

func TestUnknownBootIsExplained(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	m.Log = recordedBoot(t, "ovmf-secureboot-uki")
	m.Boot()
	_, err := m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonMeasurement, err)

	x, err := f.Explain(t.Context(), "machine/web-17")
	require.NoError(t, err)
	assert.Contains(t, x.Summary, "not approved for group default")
	var named []string
	for _, d := range x.Differences {
		named = append(named, d.Name)
		assert.NotEqual(t, d.Was, d.Is)
	}
	assert.Contains(t, named, "secureboot.state")
	assert.Contains(t, x.Advice, "keywright measurement approve")

	seen, err := f.store.Measurements(t.Context(), "default", "", 10)
	require.NoError(t, err)
	var digest string
	for _, row := range seen {
		if row.Status == kms.MeasurementSeen && row.Machine == m.TPM.Machine() {
			digest = hexOf(row.Digest)
		}
	}
	require.NotEmpty(t, digest)
	_, err = f.ApproveMeasurement(t.Context(), operator(), digest[:12], "")
	require.NoError(t, err)
	_, err = m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)
}

func TestUnknownPlatformIsApprovedForItsMachine(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	const efiVariableBoot = 0x80000002
	var err error
	m.Log, err = m.Log.With(1, efiVariableBoot, []byte("another boot entry"))
	require.NoError(t, err)
	m.Boot()
	_, err = m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonPlatform, err)

	x, err := f.Explain(t.Context(), "web-17")
	require.NoError(t, err)
	platforms, err := f.store.Platforms(t.Context(), m.TPM.Machine())
	require.NoError(t, err)
	require.Len(t, platforms, 2)
	assert.Contains(t, x.Advice, hexOf(platforms[0].Digest))
	_, err = f.ApproveMachine(t.Context(), operator(), "web-17", kms.Approval{Platform: hexOf(platforms[0].Digest)})
	require.NoError(t, err)
	_, err = m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)

	other := f.active("web-18")
	other.Log = m.Log
	other.Boot()
	_, err = other.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonPlatform, err)
}

func TestWaitingMeasurementsOfAMachineAreBounded(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	for i := range 40 {
		var err error
		m.Log, err = m.Log.With(0, 0x8, []byte{byte(i)})
		require.NoError(t, err)
		m.Boot()
		_, err = m.Unlock(t.Context(), f.guest())
		refused(t, kms.ReasonMeasurement, err)
		f.clock.Advance(time.Minute)
	}
	rows, err := f.store.Measurements(t.Context(), "default", "", 100)
	require.NoError(t, err)
	assert.Len(t, rows, 1+16)
}

// TestManyPoliciesDecide has more policies permit a release, and forbid one, than
// an entry names.
func TestManyPoliciesDecide(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	policies := func(effect string) {
		var text strings.Builder
		for i := range 40 {
			fmt.Fprintf(&text, "@id(\"p%d\") %s (principal is Machine, action == Action::\"boot.release\", resource is Volume);\n", i, effect)
		}
		var err error
		f.policy, err = policy.New(policy.Document{Name: "many", Text: []byte(text.String())})
		require.NoError(t, err)
	}
	policies("forbid")
	_, err := m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonPolicy, err)
	policies("permit")
	_, err = m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)
	assert.Len(t, f.lastEntry(m.TPM.Machine()).Policies, audit.MaxPolicies)
}

// TestRefusalIsExplainedAmongManySeen fills the group with measurements that
// nobody approved.
func TestRefusalIsExplainedAmongManySeen(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	var seen kms.Outcome
	for i := range 100 { // their digests come first
		seen.Measurements = append(seen.Measurements, kms.Measurement{
			Digest: [32]byte{31: byte(i)}, Group: "default", Claims: []byte("x"), Status: kms.MeasurementSeen, Source: kms.SourceAttested,
		})
	}
	f.write(seen)
	m.Log = recordedBoot(t, "ovmf-secureboot-uki")
	m.Boot()
	_, err := m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonMeasurement, err)
	facts := f.lastEntry(m.TPM.Machine()).Facts
	require.NotEmpty(t, facts)
	assert.Equal(t, hexOf(f.row(m).Expected), facts[0].Was, "what was approved is what it is compared with")
	assert.Greater(t, len(facts), 2)
}
