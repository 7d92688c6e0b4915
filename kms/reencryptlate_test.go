package kms_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/exchange"
	"keywright.dev/test/sim"
)

// A keyslot that turns up once the others may be lost fails the machine: that is agreed to
// anew as well, or the reencryption taken back.
func TestReencryptionWaitsForAYesToWhatTurnsUpLate(t *testing.T) {
	for name, end := range map[string]func(f *fixture, m *sim.Machine, before kms.Volume){
		"agreed": func(f *fixture, m *sim.Machine, before kms.Volume) {
			f.agree(m)
			require.NoError(f.t, m.Reencrypt(f.t.Context(), f.guest(), 0))
			f.reencrypted(m, before)
		},
		"withdrawn": func(f *fixture, m *sim.Machine, before kms.Volume) {
			_, err := f.WithdrawRekey(f.t.Context(), operator(), &before, "she needs it")
			require.NoError(f.t, err)
			f.reboot(m)
			assert.Empty(f.t, f.orders())
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			m := f.running("web-1")
			before := f.volume(m.Volumes[0].ID)
			f.orderReencryption(m)
			f.carryOut(m, reencryptionSteps()[:4])
			m.Volumes[0].Slots = append(m.Volumes[0].Slots, exchange.LUKSSlot{ID: 5, KDF: "argon2id", Mark: "01234567"})
			_, err := m.Report(t.Context(), f.guest(), 0, exchange.RekeyedDetails{Version: 2, Fault: "it would lose 5"})
			require.NoError(t, err)
			assert.Equal(t, []int{0, 5}, numbersOf(f.orders()[0].Lost))
			require.True(t, f.orders()[0].Waits())
			refusedFor(t, kms.ReasonOrder, m.ReportStage(t.Context(), f.guest(), 0, exchange.StageReady, exchange.RekeyReady))
			end(f, m, before)
		})
	}
}

// An enrolment that was run again without a recovery key leaves one that no keyslot has.
func TestReencryptionWithoutTheRecoveryKeyOfAnEnrolmentBefore(t *testing.T) {
	f := newFixture(t)
	m := f.machine("web-1")
	require.NoError(t, m.Enroll(t.Context(), f.guest()))
	m.NoRecoveryKey = true
	require.NoError(t, m.Enroll(t.Context(), f.guest()))
	f.approve(m)
	f.reboot(m)
	f.orderReencryption(m)
	require.NoError(t, m.Reencrypt(t.Context(), f.guest(), 0))
	assert.Nil(t, m.Volumes[0].NewRecovery)
	f.rekeyed(m)
}
