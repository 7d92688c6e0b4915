package server_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/api"
	"keywright.dev/kms/audit"
	"keywright.dev/test/sim"
)

// TestMachineLivesThroughTheListeners goes through the life of a machine as
// guest and operator see it.
func TestMachineLivesThroughTheListeners(t *testing.T) {
	r := newRig(t, nil)
	ctx, guest, operator := t.Context(), r.guest("127.0.0.1"), r.operator()

	m := r.machine("web-17")
	require.NoError(t, m.Enroll(ctx, guest))
	enrolled := m.Volumes[0].Key.Clone()
	list, err := operator.Machines(ctx, api.ListQuery{Status: "pending"})
	require.NoError(t, err)
	require.Len(t, list.Items, 1)
	assert.Equal(t, m.TPM.Machine(), list.Items[0].EKHash)

	m.Boot()
	_, err = m.Unlock(ctx, guest)
	refusedWith(t, api.CodePending, err)
	_, err = operator.ApproveMachine(ctx, "web-17", api.ApproveMachine{})
	assert.Contains(t, refusedWith(t, api.CodeMalformed, err).Message, "--ek-hash")
	_, err = operator.ApproveMachine(ctx, "machine/web-17", api.ApproveMachine{EKHash: m.TPM.Machine()})
	require.NoError(t, err)

	m.Boot()
	_, err = m.Unlock(ctx, guest)
	require.NoError(t, err)
	assert.True(t, enrolled.Equal(m.Volumes[0].Key))

	details, err := operator.Machine(ctx, "web-17")
	require.NoError(t, err)
	assert.Equal(t, "active", details.Status)
	assert.Len(t, details.Volumes, 2)
	require.Len(t, details.Measurements, 1)
	shown, err := operator.Measurement(ctx, details.Measurements[0].ID[:12], "")
	require.NoError(t, err)
	assert.NotEmpty(t, shown.Claims)
	_, err = operator.RetireMeasurement(ctx, shown.ID, api.RetireMeasurement{Boots: 3})
	assert.Contains(t, refusedWith(t, api.CodeState, err).Message, "machine/"+m.TPM.Machine(), "its last good one")
	volume, err := operator.Volume(ctx, "volume/"+details.Volumes[0].ID)
	require.NoError(t, err)
	assert.Equal(t, "current", volume.Secrets[0].Status)

	renamed, err := operator.RenameMachine(ctx, "web-17", "web-18")
	require.NoError(t, err)
	assert.Equal(t, "web-18", renamed.Name)
	revoked, err := operator.RevokeMachine(ctx, "web-18", "sold")
	require.NoError(t, err)
	assert.Len(t, revoked.StillOpens, 2)
	m.Boot()
	_, err = m.Unlock(ctx, guest)
	refusedWith(t, api.CodeRevoked, err)
	x, err := operator.Explain(ctx, "web-18")
	require.NoError(t, err)
	assert.Contains(t, x.Summary, "revoked")

	r.checkExport(m.Receipt)
}

// checkExport exports the log and verifies it, and finds the receipt in it.
func (r *rig) checkExport(receipt []byte) {
	r.t.Helper()
	var export bytes.Buffer
	require.NoError(r.t, r.operator().ExportAudit(r.t.Context(), &export))
	head, err := r.operator().AuditHead(r.t.Context())
	require.NoError(r.t, err)
	verifier, err := audit.ParseVerifier(head.Key)
	require.NoError(r.t, err)
	kept, err := verifier.OpenHead([]byte(head.Head))
	require.NoError(r.t, err)
	report, err := audit.VerifyExport(bytes.NewReader(export.Bytes()), verifier, kept)
	require.NoError(r.t, err)
	assert.Equal(r.t, head.Size, report.Entries)
	assert.Contains(r.t, export.String(), string(receipt))
}

func TestRestartKeepsEverything(t *testing.T) {
	data := t.TempDir()
	r := openRig(t, data, nil)
	m := r.active("web-17")
	fingerprint := r.service.Fingerprint
	r.close()

	again := openRig(t, data, nil)
	assert.Equal(t, fingerprint, again.service.Fingerprint)
	_, err := m.Unlock(t.Context(), again.guest("127.0.0.1"))
	require.NoError(t, err)
	status, err := again.operator().Status(t.Context())
	require.NoError(t, err)
	assert.True(t, status.Ready)
	assert.Equal(t, int64(1), status.Machines["active"])
}

func TestBackupIsRecordedAndShown(t *testing.T) {
	r := newRig(t, nil)
	ctx, operator := t.Context(), r.operator()
	path := t.TempDir() + "/copy.db"
	before, err := operator.Status(ctx)
	require.NoError(t, err)
	assert.Nil(t, before.LastBackup)

	backup, err := operator.Backup(ctx, path)
	require.NoError(t, err)
	assert.FileExists(t, path)
	assert.Positive(t, backup.Bytes)
	after, err := operator.Status(ctx)
	require.NoError(t, err)
	assert.NotNil(t, after.LastBackup)
	_, err = operator.Backup(ctx, path)
	refusedWith(t, api.CodeConflict, err)
	_, err = operator.Backup(ctx, "relative.db")
	refusedWith(t, api.CodeMalformed, err)
	_, err = operator.Backup(ctx, "/nowhere/at/all")
	require.Error(t, err)
	failed, err := operator.Status(ctx)
	require.NoError(t, err)
	assert.Equal(t, after.LastBackup, failed.LastBackup, "a failed one is none")
}

// TestStopFinishesAndRecords holds that what was counted is in the log when the
// service has stopped.
func TestStopFinishesAndRecords(t *testing.T) {
	data := t.TempDir()
	r := openRig(t, data, nil)
	m := r.machine("stranger")
	_, err := m.Unlock(t.Context(), r.guest("127.0.0.1"))
	refusedWith(t, api.CodeMachine, err)
	r.close()

	again := openRig(t, data, nil)
	list, err := again.operator().AuditEntries(t.Context(), api.ListQuery{Action: "guest.unproven"})
	require.NoError(t, err)
	require.Len(t, list.Items, 1)
	assert.Equal(t, "machine_unknown", list.Items[0].Code)
	assert.GreaterOrEqual(t, list.Items[0].Index, int64(0), "sequenced before the stop")
}

// TestFindingsAreShownBeforeTheApproval enrols a machine with something in its
// boot, and in its platform, that nothing explains.
func TestFindingsAreShownBeforeTheApproval(t *testing.T) {
	r := newRig(t, nil)
	plain, odd := r.machine("plain"), r.machine("odd")
	for _, pcr := range []uint32{14, 1} {
		var err error
		odd.Log, err = odd.Log.With(pcr, 0x80000004, []byte("something"))
		require.NoError(t, err)
	}
	odd.Boot()
	for _, m := range []*sim.Machine{plain, odd} {
		require.NoError(t, m.Enroll(t.Context(), r.guest("127.0.0.1")))
	}
	shown, err := r.operator().Machine(t.Context(), "plain")
	require.NoError(t, err)
	assert.Empty(t, shown.Findings)
	shown, err = r.operator().Machine(t.Context(), "odd")
	require.NoError(t, err)
	require.Len(t, shown.Findings, 2)
	assert.True(t, strings.HasPrefix(shown.Findings[0].Value, "14 "))
	assert.True(t, strings.HasPrefix(shown.Findings[1].Value, "1 "))
	measurement, err := r.operator().Measurement(t.Context(), shown.Expected, "")
	require.NoError(t, err)
	assert.Equal(t, shown.Findings[:1], measurement.Findings)
}
