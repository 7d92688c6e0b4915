package server_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
)

// TestRestoredMachineThroughTheListeners rolls a machine back and lets it in
// again, as guest and operator see it.
func TestRestoredMachineThroughTheListeners(t *testing.T) {
	r := newRig(t, nil)
	ctx, guest, operator := t.Context(), r.guest("127.0.0.1"), r.operator()
	m := r.active("web-17")
	_, err := m.Unlock(ctx, guest)
	require.NoError(t, err)
	snapshot := *m.TPM
	m.Boot()
	_, err = m.Unlock(ctx, guest)
	require.NoError(t, err)

	*m.TPM = snapshot
	m.TPM.Clock.ResetCount--
	m.Boot()
	_, err = m.Unlock(ctx, guest)
	known := refusedWith(t, api.CodeCounters, err)
	assert.Equal(t, 1209, known.Number)
	assert.Contains(t, known.Message, "a copied vTPM?")
	assert.Contains(t, known.Message, "keywright machine readmit")
	details, err := operator.Machine(ctx, "web-17")
	require.NoError(t, err)
	assert.Equal(t, []string{"counters"}, details.Alarms)
	r.measured(`keywright_alarms{kind="counters"}`, 1)

	dry, err := operator.DryRun().ReadmitMachine(ctx, "web-17", api.ReadmitMachine{})
	require.NoError(t, err)
	assert.NotNil(t, dry.ReadmitUntil)
	_, err = m.Unlock(ctx, guest)
	refusedWith(t, api.CodeCounters, err)
	readmitted, err := operator.ReadmitMachine(ctx, "machine/web-17", api.ReadmitMachine{Reason: "restored"})
	require.NoError(t, err)
	assert.NotNil(t, readmitted.ReadmitUntil)
	assert.Nil(t, readmitted.RestoreUntil)
	_, err = m.Unlock(ctx, guest)
	require.NoError(t, err)
	r.measured(`keywright_alarms{kind="counters"}`, 0)

	until := time.Now().Add(time.Hour).UTC()
	announced, err := operator.ExpectRestore(ctx, "web-17", api.ExpectRestore{Until: until})
	require.NoError(t, err)
	require.NotNil(t, announced.RestoreUntil)
	assert.WithinDuration(t, until, *announced.RestoreUntil, time.Microsecond)
	_, err = operator.ExpectRestore(ctx, "web-17", api.ExpectRestore{Until: until.AddDate(0, 0, 8)})
	assert.Contains(t, refusedWith(t, api.CodeMalformed, err).Message, "7 days")
	details, err = operator.Machine(ctx, "web-17")
	require.NoError(t, err)
	assert.NotNil(t, details.RestoreUntil)
	assert.Nil(t, details.ReadmitUntil)
	entries, err := operator.AuditEntries(ctx, api.ListQuery{Machine: "web-17", Action: "machine.expect_restore"})
	require.NoError(t, err)
	assert.Len(t, entries.Items, 1)
}

func TestKnownMachineEnrollsAgainThroughTheListeners(t *testing.T) {
	r := newRig(t, nil)
	ctx, guest, operator := t.Context(), r.guest("127.0.0.1"), r.operator()
	m := r.active("web-17")
	m.Volumes = r.machine("web-17").Volumes
	known := refusedWith(t, api.CodeEnrolled, m.Complete(ctx, guest))
	assert.Contains(t, known.Message, "a copied vTPM?")
	assert.Contains(t, known.Message, "--re-enroll")
	_, err := operator.ReadmitMachine(ctx, "web-17", api.ReadmitMachine{Reenroll: true})
	require.NoError(t, err)
	require.NoError(t, m.Enroll(ctx, guest))
	details, err := operator.Machine(ctx, "web-17")
	require.NoError(t, err)
	assert.Equal(t, "pending", details.Status)
	states := make(map[string]int)
	for _, v := range details.Volumes {
		states[v.Status]++
	}
	assert.Equal(t, map[string]int{"active": 2, "former": 2}, states)
}

// TestAlarmsAreListedInOnePlace raises one of each kind about volumes.
func TestAlarmsAreListedInOnePlace(t *testing.T) {
	r := newRig(t, nil)
	ctx, guest, operator := t.Context(), r.guest("127.0.0.1"), r.operator()
	status, err := operator.Status(ctx)
	require.NoError(t, err)
	assert.Equal(t, map[string]int64{"counters": 0, "copied": 0, "foreign": 0}, status.Alarms)

	m := r.active("web-17")
	m.Volumes[0].Slots = append(m.Volumes[0].Slots, exchange.LUKSSlot{ID: 2, KDF: "argon2id"})
	_, err = m.Unlock(ctx, guest)
	require.NoError(t, err)
	clone := r.machine("web-18")
	clone.Volumes[1].VolumeKeyDigest = m.Volumes[1].VolumeKeyDigest
	require.NoError(t, clone.Enroll(ctx, guest))

	status, err = operator.Status(ctx)
	require.NoError(t, err)
	assert.Equal(t, map[string]int64{"counters": 0, "copied": 2, "foreign": 1}, status.Alarms)
	r.measured(`keywright_alarms{kind="copied"}`, 2)
	r.measured(`keywright_alarms{kind="foreign"}`, 1)
	foreign, err := operator.Volumes(ctx, api.ListQuery{Alarm: "foreign"})
	require.NoError(t, err)
	require.Len(t, foreign.Items, 1)
	assert.Equal(t, m.Volumes[0].ID, foreign.Items[0].ID)
	copied, err := operator.Volumes(ctx, api.ListQuery{Alarm: "copied", Machine: "web-18"})
	require.NoError(t, err)
	require.Len(t, copied.Items, 1)
	assert.Equal(t, clone.Volumes[1].ID, copied.Items[0].ID)

	waiting, err := operator.Machine(ctx, "web-18")
	require.NoError(t, err)
	assert.Equal(t, []string{"copied"}, waiting.Alarms)
	for _, v := range waiting.Volumes {
		if v.ID == clone.Volumes[1].ID {
			assert.Equal(t, []api.VolumeRef{{ID: m.Volumes[1].ID, Machine: m.TPM.Machine(), Name: "web-17", Status: "active"}}, v.SameKey)
		}
	}

	shown, err := operator.Volume(ctx, m.Volumes[0].ID)
	require.NoError(t, err)
	assert.Equal(t, []api.Claim{{Name: "keyslot", Value: "2, argon2id"}}, shown.Foreign)
	_, err = operator.AcceptVolume(ctx, m.Volumes[0].ID, api.AcceptVolume{Inventory: "0000"})
	refusedWith(t, api.CodeState, err)
	accepted, err := operator.AcceptVolume(ctx, "volume/"+m.Volumes[0].ID, api.AcceptVolume{Inventory: shown.Report.Digest})
	require.NoError(t, err)
	assert.Empty(t, accepted.Alarms)
	accepted, err = operator.AcceptVolume(ctx, m.Volumes[1].ID, api.AcceptVolume{Copied: true})
	require.NoError(t, err)
	assert.Empty(t, accepted.Alarms)
	assert.Len(t, accepted.SameKey, 1, "that it is a copy is still to be seen")
}
