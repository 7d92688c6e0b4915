package kms_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/exchange"
	"keywright.dev/test/sim"
)

// withdraw takes back the order of a machine's first volume, which has the keyslot of
// the next secret by then.
func (f *fixture) withdraw(m *sim.Machine) {
	f.t.Helper()
	f.order(m, false)
	got, err := m.AskRekey(f.t.Context(), f.guest(), 0)
	require.NoError(f.t, err)
	m.Volumes[0].AddKeyslot(2, got.Next)
	v := f.volume(m.Volumes[0].ID)
	_, err = f.WithdrawRekey(f.t.Context(), operator(), &v, "a test")
	require.NoError(f.t, err)
}

func TestWithdrawnRekey(t *testing.T) {
	f, ctx := newFixture(t), t.Context()
	m := f.running("web-1")
	v := f.volume(m.Volumes[0].ID)
	_, err := f.WithdrawRekey(ctx, operator(), &v, "a test")
	require.ErrorContains(t, err, "no rekey")
	f.withdraw(m)
	_, err = m.Report(ctx, f.guest(), 0, exchange.RekeyedDetails{Version: 2})
	refusedFor(t, kms.ReasonOrder, err)
	assert.Equal(t, []kms.SecretStatus{kms.SecretCurrent}, f.statuses(m))
	_, err = f.WithdrawRekey(ctx, operator(), &v, "again")
	requireState(t, err, "was taken back")

	f.reboot(m)
	assert.Zero(t, f.alarms(kms.AlarmForeign), "what it made of the order is the service's")
	got, err := m.AskRekey(ctx, f.guest(), 0)
	require.NoError(t, err)
	assert.Equal(t, []uint32{1, 0}, []uint32{got.Version, got.NextVersion})
	require.NoError(t, m.FinishRekey(ctx, f.guest(), 0, got))
	assert.Empty(t, f.orders())
	require.Len(t, m.Volumes[0].Own, 1)
	assert.EqualValues(t, 1, m.Volumes[0].Own[0].Version)
	f.reboot(m)
	assert.Zero(t, f.alarms(kms.AlarmForeign))
}

// What is withdrawn before it was handed out leaves nothing.
func TestRekeyIsWithdrawnBeforeItIsHandedOut(t *testing.T) {
	f := newFixture(t)
	m := f.running("web-1")
	v := f.volume(m.Volumes[0].ID)
	f.order(m, false)
	_, err := f.WithdrawRekey(t.Context(), operator(), &v, "a test")
	require.NoError(t, err)
	assert.Empty(t, f.orders())
}

// Another order takes the place of one that was withdrawn, wherever the machine is.
func TestRekeyAfterOneThatWasWithdrawn(t *testing.T) {
	f, ctx := newFixture(t), t.Context()
	m := f.running("web-1")
	v := f.volume(m.Volumes[0].ID)
	f.withdraw(m)
	f.order(m, false)
	f.reboot(m)
	assert.Zero(t, f.alarms(kms.AlarmForeign), "before the next secret is made")
	_, err := f.WithdrawRekey(ctx, operator(), &v, "a test")
	require.NoError(t, err)
	assert.True(t, f.orders()[0].IsWithdrawn(), "what the first one left is still to be removed")

	f.order(m, false)
	m.Volumes[0].KillKeyslots(1)
	require.NoError(t, m.Rekey(ctx, f.guest(), 0))
	_, err = f.WithdrawRekey(ctx, operator(), &v, "a test")
	require.True(t, err != nil && !errors.Is(err, kms.ErrNotFound))
	f.rekeyed(m)
}
