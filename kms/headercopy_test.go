package kms_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
	"keywright.dev/test/sim"
)

// headerKeys counts the secrets that copies of headers are sealed under, as the
// census has them.
func (f *fixture) headerKeys() (n int64) {
	f.t.Helper()
	counts, err := f.store.Dependents(f.t.Context(), "")
	require.NoError(f.t, err)
	for _, c := range counts {
		if c.Purpose == kms.PurposeHeader {
			n += c.Count
		}
	}
	return n
}

// headerOf is what an operator is disclosed of a machine's first volume.
func (f *fixture) headerOf(m *sim.Machine) (string, error) {
	f.t.Helper()
	own, err := exchange.NewRecipient()
	require.NoError(f.t, err)
	v := f.volume(m.Volumes[0].ID)
	kept, sealed, err := f.DiscloseHeader(f.t.Context(), operator(), &v, "web-1/0", own.PublicKey())
	if err != nil {
		return "", err
	}
	statement, err := exchange.DisclosureStatement("web-1/0", 0, own.PublicKey())
	require.NoError(f.t, err)
	key, err := own.OpenDisclosure(statement, sealed.Response)
	require.NoError(f.t, err)
	header, err := exchange.OpenHeaderCopy(key, v.ID, kept.Version, kept.Sealed)
	require.NoError(f.t, err)
	return string(header), nil
}

// begun is a machine that was given the secrets of a rekey.
func (f *fixture) begun() (*sim.Machine, *exchange.ReleasedSecret) {
	f.t.Helper()
	m := f.running("web-1")
	f.order(m, false)
	got, err := m.AskRekey(f.t.Context(), f.guest(), 0)
	require.NoError(f.t, err)
	return m, got
}

func TestHeaderCopyIsKeptWhileItsRekeyIsUnderWay(t *testing.T) {
	f := newFixture(t)
	m, got := f.begun()
	assert.EqualValues(t, 1, f.headerKeys(), "counted by the census")
	_, err := f.headerOf(m)
	requireState(t, err, "no copy of the header")

	before := string(m.Volumes[0].Header())
	require.NoError(t, m.KeepHeader(t.Context(), f.guest(), 0, got))
	assert.Equal(t, f.clock.Now(), f.orders()[0].HeaderKept)
	assert.Equal(t, "2", factOf(t, f.latest(kms.ActionKeepHeader), "version").Is)
	kept, err := f.headerOf(m)
	require.NoError(t, err)
	assert.Equal(t, before, kept)
	assert.Equal(t, "volume/"+m.Volumes[0].ID, f.latest(kms.ActionDiscloseHeader).Object)

	f.rotate("default")
	assert.Zero(t, f.rewrapAll("default", 10).Remaining)
	kept, err = f.headerOf(m)
	require.NoError(t, err, "under the next version of the keyring")
	assert.Equal(t, before, kept)

	m.Volumes[0].AddKeyslot(got.NextVersion, got.Next)
	_, err = m.Report(t.Context(), f.guest(), 0, exchange.RekeyedDetails{Version: got.NextVersion})
	require.NoError(t, err)
	kept, err = f.headerOf(m)
	require.NoError(t, err, "both keyslots are there still")
	assert.Equal(t, before, kept)

	require.NoError(t, m.Rekey(t.Context(), f.guest(), 0))
	f.rekeyed(m)
	assert.Zero(t, f.headerKeys())
	_, err = f.store.HeaderCopy(t.Context(), m.Volumes[0].ID)
	require.ErrorIs(t, err, kms.ErrNotFound)
	_, err = f.headerOf(m)
	requireState(t, err, "no copy of the header")
}

// However an order goes, what it made goes with it.
func TestHeaderCopyGoesWithItsOrder(t *testing.T) {
	for name, end := range map[string]func(f *fixture, m *sim.Machine, got *exchange.ReleasedSecret){
		"withdrawn": func(f *fixture, m *sim.Machine, _ *exchange.ReleasedSecret) {
			v := f.volume(m.Volumes[0].ID)
			_, err := f.WithdrawRekey(f.t.Context(), operator(), &v, "a test")
			require.NoError(f.t, err)
		},
		"at boot instead": func(f *fixture, m *sim.Machine, _ *exchange.ReleasedSecret) { f.order(m, true) },
		"finished by a boot": func(f *fixture, m *sim.Machine, got *exchange.ReleasedSecret) {
			m.Volumes[0].AddKeyslot(got.NextVersion, got.Next)
			_, err := m.Report(f.t.Context(), f.guest(), 0, exchange.RekeyedDetails{Version: got.NextVersion})
			require.NoError(f.t, err)
			m.Volumes[0].KillKeyslots(got.NextVersion)
			f.reboot(m)
		},
		"enrolled again": func(f *fixture, m *sim.Machine, _ *exchange.ReleasedSecret) {
			f.readmit(m, kms.Readmission{Reenroll: true})
			require.NoError(f.t, m.Enroll(f.t.Context(), f.guest()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			m, got := f.begun()
			require.NoError(t, m.KeepHeader(t.Context(), f.guest(), 0, got))
			volume := m.Volumes[0].ID
			end(f, m, got)
			assert.Zero(t, f.headerKeys())
			_, err := f.store.HeaderCopy(t.Context(), volume)
			require.ErrorIs(t, err, kms.ErrNotFound)
			assert.NotContains(t, f.statuses(m), kms.SecretPending)
		})
	}
}

// A reencryption goes on after its rekey, without the copy.
func TestOrderOfAReencryptionHasNoHeaderAfterItsRekey(t *testing.T) {
	f := newFixture(t)
	m := f.running("web-1")
	f.orderReencryption(m)
	f.carryOut(m, reencryptionSteps()[:1])
	assert.Equal(t, kms.OrderRekeyed, f.orders()[0].Status)
	assert.Zero(t, f.headerKeys())
	assert.True(t, f.orders()[0].HeaderKept.IsZero())
}

func TestHeaderCopyOfAnotherIsRefused(t *testing.T) {
	f := newFixture(t)
	m, got := f.begun()
	other := f.running("web-2")
	guest, ctx := f.guest(), t.Context()
	send := func(r api.HeaderCopyRequest) error {
		_, err := guest.KeepHeader(ctx, r)
		return err
	}
	volume := m.Volumes[0].ID
	seal := func(key secret.Bytes, volume string, version uint32) []byte {
		sealed, err := exchange.SealHeaderCopy(key, volume, version, []byte("LUKS"))
		require.NoError(t, err)
		return sealed
	}
	good := api.HeaderCopyRequest{Machine: m.TPM.Machine(), Volume: volume, Version: 2, Copy: seal(got.HeaderKey, volume, 2)}
	for name, c := range map[string]struct {
		change func(*api.HeaderCopyRequest)
		want   kms.Reason
	}{
		"another key":     {func(r *api.HeaderCopyRequest) { r.Copy = seal(got.Next, volume, 2) }, kms.ReasonMalformed},
		"another machine": {func(r *api.HeaderCopyRequest) { r.Machine = other.TPM.Machine() }, kms.ReasonOrder},
		"nobody":          {func(r *api.HeaderCopyRequest) { r.Machine = "" }, kms.ReasonMachine},
		"another version": {func(r *api.HeaderCopyRequest) { r.Version, r.Copy = 1, seal(got.HeaderKey, volume, 1) }, kms.ReasonOrder},
		"another volume": {func(r *api.HeaderCopyRequest) {
			r.Volume = m.Volumes[1].ID
			r.Copy = seal(got.HeaderKey, r.Volume, 2)
		}, kms.ReasonOrder},
		"sealed for another volume": {func(r *api.HeaderCopyRequest) { r.Copy = seal(got.HeaderKey, m.Volumes[1].ID, 2) }, kms.ReasonMalformed},
		"nothing":                   {func(r *api.HeaderCopyRequest) { r.Copy = nil }, kms.ReasonMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			r := good
			c.change(&r)
			refusedFor(t, c.want, send(r))
			assert.True(t, f.orders()[0].HeaderKept.IsZero())
		})
	}
	require.NoError(t, send(good))
	first := f.orders()[0].HeaderKept
	f.clock.Advance(time.Second)
	require.NoError(t, send(good), "the answer was lost")
	assert.Equal(t, first, f.orders()[0].HeaderKept, "it is not written again")
	again, err := m.AskRekey(ctx, guest, 0)
	require.NoError(t, err)
	assert.True(t, again.HeaderKey.Equal(got.HeaderKey))
	require.NoError(t, send(good), "a machine that was cut begins again")
	assert.Equal(t, first.Add(time.Second), f.orders()[0].HeaderKept)

	m.Volumes[0].AddKeyslot(2, got.Next)
	_, err = m.Report(ctx, guest, 0, exchange.RekeyedDetails{Version: 2})
	require.NoError(t, err)
	refusedFor(t, kms.ReasonOrder, send(good))
}
