package kms_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/store/storetest"
)

// Attack 2: an announcement is not replayed, neither as it was nor beside another
// challenge.
func TestAttack02AnnouncementIsReplayed(t *testing.T) {
	f := newFixture(t)
	m := f.booted("web-17")
	announce(t, m, "grub-newinitrd")
	issued, err := f.guest().StageChallenge(t.Context())
	require.NoError(t, err)
	r, err := m.Prepare(exchange.PurposeStage, issued)
	require.NoError(t, err)
	evidence, err := r.Attest()
	require.NoError(t, err)
	request := api.StageRequest{Attested: evidence}
	_, err = f.guest().Stage(t.Context(), request)
	require.NoError(t, err)

	f.stage(m, "grub-a")
	before := f.row(m)
	_, err = f.guest().Stage(t.Context(), request)
	refused(t, kms.ReasonChallenge, err)
	fresh, err := f.guest().StageChallenge(t.Context())
	require.NoError(t, err)
	request.Challenge, request.Token = fresh.Challenge, fresh.Token
	_, err = f.guest().Stage(t.Context(), request)
	refused(t, kms.ReasonChallenge, err)
	boot, err := f.guest().Challenge(t.Context())
	require.NoError(t, err)
	request.Challenge, request.Token = boot.Challenge, boot.Token
	_, err = f.guest().Stage(t.Context(), request)
	refused(t, kms.ReasonChallenge, err)
	assert.Equal(t, before, f.row(m))
}

// What waits for an operator is bounded for each machine. Beyond that nothing is
// staged but boots that an operator approved for the group.
func TestStagedMeasurementsAreBounded(t *testing.T) {
	f := newFixture(t)
	m := f.booted("web-17")
	const most = 16
	for n := range most {
		seen := storetest.NewMeasurement(kms.DefaultGroup, n)
		seen.Status, seen.Machine, seen.Approved, seen.ApprovedBy = kms.MeasurementSeen, m.TPM.Machine(), time.Time{}, ""
		f.write(kms.Outcome{Measurements: []kms.Measurement{seen}})
	}
	before := f.row(m)
	announce(t, m, "grub-oldkernel", "grub-a")
	_, err := m.Stage(t.Context(), f.guest())
	refused(t, kms.ReasonRate, err)
	assert.Equal(t, before, f.row(m))
	platforms, err := f.store.Platforms(t.Context(), m.TPM.Machine())
	require.NoError(t, err)
	assert.Len(t, platforms, 1, "nothing was staged")

	staged := f.stage(m, "grub-newinitrd", "grub-a")
	assert.Empty(t, staged.Boots[0].Code)
}

// What a machine announces each day does not hide how its last boot ended, nor
// does that it may announce nothing once a passphrase opened its volumes.
func TestExplainLooksPastAnnouncements(t *testing.T) {
	f := newFixture(t)
	m := f.booted("web-17")
	f.stage(m, "grub-a")
	x, err := f.Explain(t.Context(), "web-17")
	require.NoError(t, err)
	assert.Contains(t, x.Summary, "received its keys")

	m.Log = recordedBoot(t, "grub-oldkernel")
	m.Boot()
	_, err = m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonMeasurement, err)
	m.TPM.Extend(15, exchange.NoReleaseEvent())
	_, err = m.Stage(t.Context(), f.guest())
	refused(t, kms.ReasonUnreleased, err)
	x, err = f.Explain(t.Context(), "web-17")
	require.NoError(t, err)
	assert.Equal(t, string(kms.ReasonMeasurement), x.Last.Code)
}
