package kms_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/exchange"
	"keywright.dev/test/sim"
)

func (f *fixture) destroySecret(m *sim.Machine, version uint32) error {
	f.t.Helper()
	v := f.volume(m.Volumes[0].ID)
	_, err := f.DestroySecret(f.t.Context(), operator(), &v, version, "a test")
	return err
}

func TestReplacedSecretIsDestroyed(t *testing.T) {
	f := newFixture(t)
	m := f.running("web-1")
	requireState(t, f.destroySecret(m, 1), "version 1 is current")
	requireState(t, f.destroySecret(m, 2), "no version 2")
	f.order(m, false)
	image := m.Volumes[0]
	image.Own, image.Slots = append([]sim.Keyslot(nil), image.Own...), append(image.Slots[:0:0], image.Slots...)
	require.NoError(t, m.Rekey(t.Context(), f.guest(), 0))
	f.rekeyed(m)

	f.order(m, false)
	requireState(t, f.destroySecret(m, 2), "version 2 is current")
	got, err := m.AskRekey(t.Context(), f.guest(), 0)
	require.NoError(t, err)
	m.Volumes[0].AddKeyslot(got.NextVersion, got.Next)
	_, err = m.Report(t.Context(), f.guest(), 0, exchange.RekeyedDetails{Version: got.NextVersion})
	require.NoError(t, err)
	require.Equal(t, kms.OrderCommitted, f.orders()[0].Status)
	requireState(t, f.destroySecret(m, 2), "may need version 2 until")
	assert.Equal(t, []kms.SecretStatus{kms.SecretRestoreOnly, kms.SecretRestoreOnly, kms.SecretCurrent}, f.statuses(m))

	// Somebody is about to put an image back that only this opens.
	f.expectRestore(m, time.Hour)
	requireState(t, f.destroySecret(m, 1), "a restore of machine/"+m.TPM.Machine()+" is announced until ")
	f.clock.Advance(time.Hour)

	require.NoError(t, f.destroySecret(m, 1))
	assert.Equal(t, []kms.SecretStatus{kms.SecretRestoreOnly, kms.SecretCurrent}, f.statuses(m))
	entry := f.latest(kms.ActionDestroySecret)
	assert.Equal(t, "volume/"+m.Volumes[0].ID, entry.Object)
	assert.Equal(t, "1", factOf(t, entry, "version").Was)
	assert.Equal(t, "a test", factOf(t, entry, "reason").Is)
	requireState(t, f.destroySecret(m, 1), "no version 1")
	requireState(t, f.destroySecret(m, 2), "may need version 2 until")
	require.NoError(t, m.Rekey(t.Context(), f.guest(), 0))
	assert.Empty(t, f.orders())

	// The image from before opens no more, announced or not.
	m.Volumes[0] = image
	f.expectRestore(m, time.Hour)
	m.Boot()
	_, err = m.Unlock(t.Context(), f.guest())
	require.ErrorContains(t, err, "version 3, opens no keyslot")
}
