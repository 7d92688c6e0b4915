package kms_test

import (
	"io"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/recovery"
	"keywright.dev/kms/secret"
	"keywright.dev/test/sim"
)

// enrolledVolume returns the row of a machine's volume.
func (f *fixture) enrolledVolume(m *sim.Machine, i int) *kms.Volume {
	f.t.Helper()
	volumes, err := f.store.Volumes(f.t.Context(), m.TPM.Machine(), "", 10)
	require.NoError(f.t, err)
	for j := range volumes {
		if volumes[j].ID == m.Volumes[i].ID {
			return &volumes[j]
		}
	}
	require.Fail(f.t, "no such volume")
	return nil
}

func (f *fixture) disclose(m *sim.Machine, i int) (string, error) {
	key, err := f.DiscloseRecoveryKey(f.t.Context(), operator(), f.enrolledVolume(m, i), 0)
	defer key.Wipe()
	return string(key.Expose()), err
}

func TestEnrolmentMakesRecoveryKeys(t *testing.T) {
	f := newFixture(t)
	m := f.machine("web-17")
	require.NoError(t, m.Complete(t.Context(), f.guest()))
	assert.Equal(t, "2", factOf(t, f.lastEntry(m.TPM.Machine()), "recovery.keys").Is)
	first := m.Volumes[0]
	assert.Equal(t, recovery.Length, first.Recovery.Len())
	assert.False(t, first.Recovery.Equal(m.Volumes[1].Recovery))
	row := f.recoveryOf(m, 0)
	assert.Equal(t, kms.SecretPending, row.Status)
	assert.Empty(t, row.AgeCopy, "nobody is named")
	_, err := f.disclose(m, 0)
	requireState(t, err, "no recovery key")

	require.NoError(t, m.Complete(t.Context(), f.guest()), "taken up again")
	assert.True(t, first.Recovery.Equal(m.Volumes[0].Recovery), "the same key")
	assert.Equal(t, "0", factOf(t, f.lastEntry(m.TPM.Machine()), "recovery.keys").Is)
	_, err = m.Commit(t.Context(), f.guest())
	require.NoError(t, err)
	assert.Equal(t, kms.SecretCurrent, f.recoveryOf(m, 0).Status)
	require.NoError(t, m.Complete(t.Context(), f.guest()), "the commit's answer was lost")
	assert.True(t, first.Recovery.Equal(m.Volumes[0].Recovery))
	f.approve(m)

	m.Boot()
	release, err := m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)
	for _, s := range release.Secrets {
		assert.NotZero(t, s.Key.Len())
		assert.Zero(t, s.Recovery.Len(), "a boot gets no recovery key")
	}
}

func requireState(t *testing.T, err error, want string) {
	t.Helper()
	var state *kms.StateError
	require.ErrorAs(t, err, &state)
	require.Contains(t, state.Text, want)
}

func TestEnrolmentWithoutRecoveryKeys(t *testing.T) {
	f := newFixture(t)
	m := f.machine("web-17")
	m.NoRecoveryKey = true
	require.NoError(t, m.Enroll(t.Context(), f.guest()))
	rows, err := f.store.Secrets(t.Context(), m.Volumes[0].ID)
	require.NoError(t, err)
	assert.Len(t, rows, 1)
	assert.Zero(t, m.Volumes[0].Recovery.Len())
	_, err = f.disclose(m, 0)
	requireState(t, err, "no recovery key")

	m.NoRecoveryKey = false
	require.NoError(t, m.Enroll(t.Context(), f.guest()), "before the approval it may want them after all")
	assert.Equal(t, recovery.Length, m.Volumes[0].Recovery.Len())
	assert.Equal(t, kms.SecretCurrent, f.recoveryOf(m, 0).Status)

	before := m.Volumes[0].Recovery
	m.NoRecoveryKey, m.Volumes[0].Recovery = true, secret.Bytes{}
	require.NoError(t, m.Complete(t.Context(), f.guest()))
	assert.True(t, before.Equal(m.Volumes[0].Recovery), "a keyslot of it may exist, which the machine has to find")
	_, err = m.Commit(t.Context(), f.guest())
	require.NoError(t, err)
	assert.Equal(t, kms.SecretPending, f.recoveryOf(m, 0).Status, "the header has none")
	_, err = f.disclose(m, 0)
	requireState(t, err, "no recovery key")
}

func TestDisclosureIsRecorded(t *testing.T) {
	f := newFixture(t)
	m := f.machine("web-17")
	require.NoError(t, m.Enroll(t.Context(), f.guest()))
	want := string(m.Volumes[1].Recovery.Expose())
	f.approve(m)
	_, _, err := f.RevokeMachine(t.Context(), operator(), m.TPM.Machine(), "")
	require.NoError(t, err, "its data is wanted all the same")

	dry := operator()
	dry.DryRun = true
	_, err = f.DiscloseRecoveryKey(t.Context(), dry, f.enrolledVolume(m, 1), 0)
	require.ErrorContains(t, err, "dry run")
	assert.True(t, f.recoveryOf(m, 1).Disclosed.IsZero())

	got, err := f.disclose(m, 1)
	require.NoError(t, err)
	assert.Equal(t, want, got)
	assert.Equal(t, f.clock.Now(), f.recoveryOf(m, 1).Disclosed)
	assert.True(t, f.recoveryOf(m, 0).Disclosed.IsZero())
	entry := f.lastEntry(m.TPM.Machine())
	assert.Equal(t, "volume.recovery_key", entry.Action)
	assert.Equal(t, "volume/"+m.Volumes[1].ID, entry.Object)
	assert.Equal(t, operator().Actor, entry.Actor)
	assert.Equal(t, m.Volumes[1].UUID, factOf(t, entry, "volume.uuid").Is)
	assert.Equal(t, "1", factOf(t, entry, "secret.version").Is)
	text, err := entry.Marshal()
	require.NoError(t, err)
	assert.NotContains(t, string(text), want)
}

// TestAttack21RecoveryRowsAreSwapped has what opens another keyslot, of the same
// volume or another, stand in the row of a recovery key.
func TestAttack21RecoveryRowsAreSwapped(t *testing.T) {
	f := newFixture(t)
	m, other := f.active("web-17"), f.active("web-18")
	own := f.recoveryOf(m, 0)
	for name, wrapped := range map[string]string{
		"the secret of boots": f.secretOf(m, 0).Wrapped,
		"another volume's":    f.recoveryOf(m, 1).Wrapped,
		"another machine's":   f.recoveryOf(other, 0).Wrapped,
	} {
		row := own
		row.Wrapped = wrapped
		f.write(kms.Outcome{Secrets: []kms.Secret{row}})
		_, err := f.disclose(m, 0)
		require.ErrorContains(t, err, "does not open", name)
		assert.True(t, f.recoveryOf(m, 0).Disclosed.IsZero(), name)
	}
	f.write(kms.Outcome{Secrets: []kms.Secret{own}})
	_, err := f.disclose(m, 0)
	require.NoError(t, err, "the row as it was")
}

func TestRecoveryKeysAreEncryptedToPeople(t *testing.T) {
	f := newFixture(t)
	identity, err := age.GenerateHybridIdentity()
	require.NoError(t, err)
	f.Recovery, err = recovery.ParseRecipients([]string{identity.Recipient().String()})
	require.NoError(t, err)
	m := f.machine("web-17")
	require.NoError(t, m.Enroll(t.Context(), f.guest()))
	without := f.machine("web-18")
	without.NoRecoveryKey = true
	require.NoError(t, without.Enroll(t.Context(), f.guest()))

	all, err := f.store.Volumes(t.Context(), "", "", 10)
	require.NoError(t, err)
	copies, err := f.RecoveryCopies(t.Context(), operator(), all)
	require.NoError(t, err)
	require.Len(t, all, 4)
	require.Len(t, copies, 2)
	one, err := f.RecoveryCopyOf(t.Context(), operator(), f.enrolledVolume(m, 0))
	require.NoError(t, err)
	assert.Contains(t, copies, *one)
	assert.Equal(t, m.Volumes[0].UUID, one.Volume.UUID)
	in, err := age.Decrypt(armor.NewReader(strings.NewReader(one.Age)), identity)
	require.NoError(t, err)
	plain, err := io.ReadAll(in)
	require.NoError(t, err)
	assert.Equal(t, string(m.Volumes[0].Recovery.Expose()), string(plain))

	_, err = f.RecoveryCopyOf(t.Context(), operator(), f.enrolledVolume(without, 0))
	requireState(t, err, "no age copy")
	found, err := f.store.LatestEntries(t.Context(), "", kms.ActionExportCopies, 10)
	require.NoError(t, err)
	assert.Len(t, found, 2, "each time copies left")
}

// A service that cannot make a recovery key makes no half enrolment.
func TestEnrolmentIsWholeWithItsRecoveryKeys(t *testing.T) {
	f := newFixture(t)
	m := f.machine("web-17")
	f.Random = strings.NewReader(strings.Repeat("r", 32+32+32+31)) // release id, names, secret, most of a recovery key
	require.ErrorContains(t, m.Complete(t.Context(), f.guest()), "making a recovery key")
	_, err := f.FindMachine(t.Context(), m.TPM.Machine())
	require.Error(t, err)
}
