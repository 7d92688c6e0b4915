package server_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/cmd/keywright/config"
	"keywright.dev/kms/api"
)

// TestPlanOfTheStore plans for a service with a machine, as its policy says.
func TestPlanOfTheStore(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rotation.toml")
	require.NoError(t, os.WriteFile(file, []byte("[default]\njitter = \"none\"\nsecret_age = \"90d\"\n"), 0o600))
	r := newRig(t, func(c *config.Config) { c.Rotation.Policy = file })
	ctx, operator, guest := t.Context(), r.operator(), r.guest("127.0.0.1")
	m := r.active("web-17")
	_, err := m.Unlock(ctx, guest)
	require.NoError(t, err)

	plan, err := operator.RotationPlan(ctx, time.Time{}, 0)
	require.NoError(t, err)
	assert.Empty(t, plan.Steps)
	assert.Empty(t, plan.Totals)

	at := time.Now().Add(91 * 24 * time.Hour).Truncate(time.Second)
	plan, err = operator.RotationPlan(ctx, at, 0)
	require.NoError(t, err)
	assert.True(t, at.Equal(plan.At))
	require.Len(t, plan.Steps, 2)
	for _, s := range plan.Steps {
		assert.Equal(t, "rekey-volume", s.Kind)
		assert.Equal(t, m.TPM.Machine(), s.Machine)
		assert.Contains(t, s.Reason, "before 90d")
		assert.True(t, s.Away, "nobody waits for it")
	}
	assert.Equal(t, []api.RotationTotal{{Rule: "default", Kind: "rekey-volume", Count: 2, Cost: api.RotationCost{Machines: 2}}}, plan.Totals)
	assert.EqualValues(t, 2, plan.Overdue.Count)
	assert.Len(t, plan.Overdue.First, 2)

	plan, err = operator.RotationPlan(ctx, at, 1)
	require.NoError(t, err)
	assert.Len(t, plan.Steps, 1)
	assert.Equal(t, 1, plan.Unlisted)
	assert.EqualValues(t, 2, plan.Totals[0].Count)

	waited := make(chan error, 1)
	go func() {
		_, err := guest.Orders(context.WithoutCancel(ctx), m.TPM.Machine())
		waited <- err
	}()
	r.measured(`keywright_guest_lane_in_use{lane="wait"}`, 1)
	plan, err = operator.RotationPlan(ctx, at, 0)
	require.NoError(t, err)
	assert.False(t, plan.Steps[0].Away)
	_, err = operator.RekeyVolume(ctx, m.Volumes[0].ID, api.RekeyVolume{Reason: "a test"})
	require.NoError(t, err)
	require.NoError(t, <-waited)
	plan, err = operator.RotationPlan(ctx, at, 0)
	require.NoError(t, err)
	require.Len(t, plan.Steps, 1, "none for a volume with an open order")
	assert.Equal(t, "volume/"+m.Volumes[1].ID, plan.Steps[0].Object)
	assert.EqualValues(t, 1, plan.Orders.Open)

	for _, at := range []time.Time{time.Now().AddDate(-1, 0, 0), time.Now().AddDate(11, 0, 0)} {
		_, err = operator.RotationPlan(ctx, at, 0)
		refusedWith(t, api.CodeMalformed, err)
	}
}
