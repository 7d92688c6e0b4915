package kms_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/audit"
	"keywright.dev/kms/exchange"
	"keywright.dev/test/sim"
)

// entries returns the entries of an action about a machine, newest first.
func (f *fixture) entries(machine, action string) []audit.Entry {
	f.t.Helper()
	found, err := f.store.LatestEntries(f.t.Context(), machine, action, 100)
	require.NoError(f.t, err)
	var entries []audit.Entry
	for _, x := range found {
		entry, err := f.Log.Verifier().Verify(x.Signed)
		require.NoError(f.t, err)
		entries = append(entries, entry)
	}
	return entries
}

func (f *fixture) reboot(m *sim.Machine) {
	f.t.Helper()
	m.Boot()
	_, err := m.Unlock(f.t.Context(), f.guest())
	require.NoError(f.t, err)
}

func (f *fixture) accept(id string, a kms.Acceptance) {
	f.t.Helper()
	v := f.volume(id)
	_, err := f.AcceptVolume(f.t.Context(), operator(), &v, a)
	require.NoError(f.t, err)
}

// clevis is a keyslot and token that somebody added by hand.
func clevis(v *sim.Volume, slot int) {
	v.Slots = append(v.Slots, exchange.LUKSSlot{ID: slot, KDF: "pbkdf2", Priority: 1})
	v.Tokens = append(v.Tokens, exchange.LUKSToken{ID: slot, Type: "clevis", Slots: []int{slot}})
}

// TestAttack20ForeignKeyslotRaisesAnAlarm adds a keyslot that the service knows
// nothing of. That is no reason to leave a machine without its disks, so that the
// boot goes on; it can't be hidden from who looks at the service.
func TestAttack20ForeignKeyslotRaisesAnAlarm(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	machine, volume := m.TPM.Machine(), &m.Volumes[1]
	f.reboot(m)
	assert.Zero(t, f.alarms(kms.AlarmForeign), "what was committed is accepted")

	clevis(volume, 2)
	f.reboot(m)
	assert.EqualValues(t, 1, f.alarms(kms.AlarmForeign))
	raised := f.entries(machine, kms.ActionForeign)
	require.Len(t, raised, 1)
	assert.Equal(t, "volume/"+volume.ID, raised[0].Object)
	assert.Equal(t, []audit.Fact{{Name: "luks.keyslot", Is: "2, pbkdf2"}, {Name: "luks.token", Is: "2, clevis, keyslots 2"}}, raised[0].Facts)
	flagged, err := f.store.AlarmedVolumes(t.Context(), kms.AlarmForeign, "", 10)
	require.NoError(t, err)
	require.Len(t, flagged, 1)
	assert.Equal(t, volume.ID, flagged[0].ID)
	receipt, err := audit.ParseSigned(m.Receipt)
	require.NoError(t, err)
	entry, err := f.Log.Verifier().Verify(receipt.Marshal())
	require.NoError(t, err)
	assert.Equal(t, kms.ActionRelease, entry.Action, "the guest keeps the entry of its release")
	x, err := f.Explain(t.Context(), "web-17")
	require.NoError(t, err)
	assert.Contains(t, x.Summary, "received its keys")

	f.reboot(m)
	assert.Len(t, f.entries(machine, kms.ActionForeign), 1, "once for each change")
	clevis(volume, 3)
	f.reboot(m)
	raised = f.entries(machine, kms.ActionForeign)
	require.Len(t, raised, 2)
	assert.Equal(t, "3, pbkdf2", raised[0].Facts[0].Is, "what is new")
	assert.Len(t, raised[0].Facts, 2)

	volume.Slots, volume.Tokens = volume.Slots[:2], nil
	f.reboot(m)
	assert.Zero(t, f.alarms(kms.AlarmForeign), "they are gone")
	assert.Len(t, f.entries(machine, kms.ActionForeign), 2, "the log is not")
}

// A slot of the same number with another KDF, and a token that points elsewhere,
// are others; priorities and the count of changes open nothing.
func TestAttack20KeyslotInThePlaceOfAnother(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	volume := &m.Volumes[0]
	volume.Slots[0].Priority = 2
	f.reboot(m)
	assert.Zero(t, f.alarms(kms.AlarmForeign))
	volume.Slots[0].KDF = "pbkdf2"
	f.reboot(m)
	assert.EqualValues(t, 1, f.alarms(kms.AlarmForeign))
	volume.Slots[0].KDF = "argon2id"
	f.reboot(m)
	assert.Zero(t, f.alarms(kms.AlarmForeign))
	mark := volume.Slots[0].Mark
	volume.Slots[0].Mark = "00000000" // killed and made anew
	f.reboot(m)
	assert.EqualValues(t, 1, f.alarms(kms.AlarmForeign))
	assert.Equal(t, "0, argon2id, 00000000", factOf(t, f.entries(m.TPM.Machine(), kms.ActionForeign)[0], "luks.keyslot").Is)
	volume.Slots[0].Mark = mark
	f.reboot(m)
	assert.Zero(t, f.alarms(kms.AlarmForeign))
	volume.Tokens = []exchange.LUKSToken{{ID: 1, Type: "systemd-tpm2", Slots: []int{0}}}
	f.reboot(m)
	assert.EqualValues(t, 1, f.alarms(kms.AlarmForeign))
}

func TestRefusedBootReportsNothing(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	clevis(&m.Volumes[0], 2)
	m.Log = recordedBoot(t, "ovmf-secureboot-uki")
	m.Boot()
	_, err := m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonMeasurement, err)
	assert.Zero(t, f.alarms(kms.AlarmForeign), "what nobody approved is not believed")
}

func TestForeignKeyslotIsAccepted(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	clevis(&m.Volumes[0], 2)
	f.reboot(m)
	v := f.volume(m.Volumes[0].ID)
	seen := v.InventoryDigest()
	dry := operator()
	dry.DryRun = true
	_, err := f.AcceptVolume(t.Context(), dry, &v, kms.Acceptance{Inventory: seen})
	require.NoError(t, err)
	assert.EqualValues(t, 1, f.alarms(kms.AlarmForeign), "it was a dry run")

	clevis(&m.Volumes[0], 3)
	f.reboot(m)
	_, err = f.AcceptVolume(t.Context(), operator(), &v, kms.Acceptance{Inventory: seen})
	var state *kms.StateError
	require.ErrorAs(t, err, &state)
	assert.Contains(t, state.Text, "another header meanwhile")
	now := f.volume(v.ID)
	f.accept(v.ID, kms.Acceptance{Inventory: now.InventoryDigest(), Reason: "clevis as well"})
	entry := f.lastEntry(m.TPM.Machine())
	assert.Equal(t, kms.ActionAcceptVolume, entry.Action)
	assert.Equal(t, "clevis as well", factOf(t, entry, "reason").Is)
	assert.Equal(t, "2, pbkdf2", factOf(t, entry, "luks.keyslot").Is)
	assert.Zero(t, f.alarms(kms.AlarmForeign))
	f.reboot(m)
	assert.Zero(t, f.alarms(kms.AlarmForeign))
	clevis(&m.Volumes[0], 4)
	f.reboot(m)
	assert.EqualValues(t, 1, f.alarms(kms.AlarmForeign))
}

// What a header's token calls itself goes into an entry, whatever it is.
func TestForeignTokenMayCallItselfAnything(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	for i := range 100 {
		m.Volumes[0].Tokens = append(m.Volumes[0].Tokens, exchange.LUKSToken{ID: i, Type: fmt.Sprintf("\x1b[2J\n\x00 %d", i)})
	}
	f.reboot(m)
	raised := f.entries(m.TPM.Machine(), kms.ActionForeign)
	require.Len(t, raised, 1)
	assert.Equal(t, `0, "\x1b[2J\n\x00 0", keyslots `, raised[0].Facts[0].Is)
}

// copyOf returns a machine with a TPM of its own whose disks are copies of
// another's, enrolled.
func (f *fixture) copyOf(m *sim.Machine, name string) *sim.Machine {
	f.t.Helper()
	clone := f.machine(name)
	for i := range m.Volumes {
		clone.Volumes[i].Volume = exchange.Volume{UUID: m.Volumes[i].UUID, Identity: m.Volumes[i].Identity}
		clone.Volumes[i].VolumeKeyDigest = m.Volumes[i].VolumeKeyDigest
	}
	require.NoError(f.t, clone.Enroll(f.t.Context(), f.guest()))
	return clone
}

func TestAttack15CopiedDiskRaisesAnAlarm(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	f.reboot(m)
	assert.Zero(t, f.alarms(kms.AlarmCopied))
	clone := f.copyOf(m, "web-18")
	assert.EqualValues(t, 4, f.alarms(kms.AlarmCopied), "two volumes of each")
	raised := f.entries(clone.TPM.Machine(), kms.ActionCopied)
	require.Len(t, raised, 2)
	assert.Equal(t, "machine/"+m.TPM.Machine(), factOf(t, raised[0], "volume_key.also_on").Is)
	assert.Len(t, f.entries(m.TPM.Machine(), kms.ActionCopied), 2)
	_, err := clone.Commit(t.Context(), f.guest())
	require.NoError(t, err)
	assert.Len(t, f.entries(clone.TPM.Machine(), kms.ActionCopied), 2, "once")

	f.reboot(m)
	f.approve(clone)
	assert.Contains(t, []string{clone.Volumes[0].ID, clone.Volumes[1].ID}, factOf(t, f.lastEntry(clone.TPM.Machine()), "volume.copied").Is)
	f.reboot(clone)
	assert.EqualValues(t, 4, f.alarms(kms.AlarmCopied), "it stops no boot")

	id := m.Volumes[0].ID
	f.accept(id, kms.Acceptance{})
	assert.True(t, f.volume(id).Copied, "that is accepted by name alone")
	f.accept(id, kms.Acceptance{Copied: true})
	assert.False(t, f.volume(id).Copied)
	f.reboot(m)
	assert.False(t, f.volume(id).Copied)
	f.copyOf(m, "web-19")
	assert.True(t, f.volume(id).Copied, "there is another one")
}

// A header that gets another volume key while it is enrolled is looked at then.
func TestVolumeKeyThatIsReportedLater(t *testing.T) {
	f := newFixture(t)
	m, other := f.active("web-17"), f.active("web-18")
	m.Volumes[0].VolumeKeyDigest = other.Volumes[1].VolumeKeyDigest
	f.reboot(m)
	assert.EqualValues(t, 2, f.alarms(kms.AlarmCopied))
	assert.Len(t, f.entries(m.TPM.Machine(), kms.ActionCopied), 1)
	assert.Len(t, f.entries(other.TPM.Machine(), kms.ActionCopied), 1)
	m.Volumes[0].VolumeKeyDigest = []byte("fresh")
	f.reboot(m)
	assert.EqualValues(t, 1, f.alarms(kms.AlarmCopied), "the other's waits to be looked at")
}

// How large a volume is says each of its reports, and one that cannot be is not kept.
func TestSizeOfAVolumeIsWhatItReportedLast(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	v := &m.Volumes[0]
	size := func() uint64 {
		keys, err := f.store.VolumeKeysOf(t.Context(), []string{v.ID})
		require.NoError(t, err)
		require.Len(t, keys, 1)
		assert.Equal(t, keys[0].Size, f.volume(v.ID).Size)
		return keys[0].Size
	}
	assert.Equal(t, v.Size, size())
	grown := v.Size * 2
	for _, v.Size = range []uint64{grown, 1<<60 + 1, 1 << 63} {
		f.reboot(m)
		assert.Equal(t, grown, size())
	}
	assert.Zero(t, f.alarms(kms.AlarmForeign))
}

// A fleet of one image is looked at by a bounded number of rows for each commit.
func TestManyCopiesOfOneDisk(t *testing.T) {
	f := newFixture(t)
	f.trust = "ca: CN=swtpm"
	m := f.active("web-0")
	var last *sim.Machine
	for i := range kms.MaxSameKey + 2 {
		last = f.copyOf(m, fmt.Sprintf("web-%d", i+1))
	}
	assert.Len(t, f.entries(last.TPM.Machine(), kms.ActionCopied), 2, "one for each volume, however many others there are")
	assert.EqualValues(t, 2*(kms.MaxSameKey+3), f.alarms(kms.AlarmCopied))
	assert.Len(t, f.entries(m.TPM.Machine(), kms.ActionCopied), 2)
	volumes, err := f.store.SameKey(t.Context(), m.Volumes[0].VolumeKeyDigest, m.TPM.Machine(), 100)
	require.NoError(t, err)
	assert.Len(t, volumes, kms.MaxSameKey+2)
}
