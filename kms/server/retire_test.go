package server_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/cmd/keywright/config"
	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/test/sim"
)

// A plan has the step that retires an old measurement, and the step has what the call
// wants.
func TestPlanRetiresWhatNewerBootsReplaced(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rotation.toml")
	require.NoError(t, os.WriteFile(file, []byte("[default]\nretire_measurements_after = 1\n"), 0o600))
	r := newRig(t, func(c *config.Config) { c.Rotation.Policy = file })
	ctx, operator, guest := t.Context(), r.operator(), r.guest("127.0.0.1")
	m := r.active("web-17")
	_, err := m.Unlock(ctx, guest)
	require.NoError(t, err)
	before, err := operator.Machine(ctx, "web-17")
	require.NoError(t, err)

	m.Log, err = sim.ReadLog(filepath.Join("..", "attest", "testdata", "eventlogs", "ovmf-secureboot-uki.bin"))
	require.NoError(t, err)
	m.Boot()
	_, err = m.Unlock(ctx, guest)
	refusedWith(t, api.CodeMeasurement, err)
	explained, err := operator.Explain(ctx, "web-17")
	require.NoError(t, err)
	i := slices.IndexFunc(explained.Differences, func(d api.Difference) bool { return d.Name == "measurement" })
	require.GreaterOrEqual(t, i, 0)
	_, err = operator.ApproveMeasurement(ctx, explained.Differences[i].Is, "")
	require.NoError(t, err)
	m.Boot()
	_, err = m.Unlock(ctx, guest)
	require.NoError(t, err)
	plan, err := operator.RotationPlan(ctx, time.Time{}, 0)
	require.NoError(t, err)
	assert.Empty(t, plan.Steps, "nothing shows that its system runs")

	m.Stages = exchange.StageDetails{Boots: []exchange.NextBoot{{}}}
	_, err = m.Stage(ctx, guest)
	require.NoError(t, err)
	plan, err = operator.RotationPlan(ctx, time.Time{}, 0)
	require.NoError(t, err)
	require.Len(t, plan.Steps, 1)
	s := plan.Steps[0]
	assert.Equal(t, "retire-measurement", s.Kind)
	assert.Equal(t, "measurement/"+before.Attested, s.Object)
	assert.Equal(t, 1, s.Boots)
	retired, err := operator.RetireMeasurement(ctx, before.Attested, api.RetireMeasurement{Group: s.Group, Boots: s.Boots})
	require.NoError(t, err)
	assert.Equal(t, "retired", retired.Status)
	plan, err = operator.RotationPlan(ctx, time.Time{}, 0)
	require.NoError(t, err)
	assert.Empty(t, plan.Steps)
}
