package kms_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/test/sim"
)

// TestRestoredDiskIsHeldAndRekeyed puts back an image of the disk from before a
// rekey: it is held for an operator, released once, and rekeyed at once.
func TestRestoredDiskIsHeldAndRekeyed(t *testing.T) {
	for name, goOn := range map[string]func(*fixture, *sim.Machine) error{
		"by the boot": func(*fixture, *sim.Machine) error { return nil },
		"by the agent": func(f *fixture, m *sim.Machine) error {
			got, err := m.AskRekey(f.t.Context(), f.guest(), 0)
			require.NoError(f.t, err)
			assert.EqualValues(f.t, 1, got.Version, "what opens the disk, and not the current one")
			return m.FinishRekey(f.t.Context(), f.guest(), 0, got)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, ctx := newFixture(t), t.Context()
			m := f.running("web-1")
			image := m.Volumes[0]
			image.Own, image.Slots = slices.Clone(image.Own), slices.Clone(image.Slots)
			old := image.Own[0].Key
			f.order(m, false)
			require.NoError(t, m.Rekey(ctx, f.guest(), 0))
			f.rekeyed(m)

			back := func() {
				m.Volumes[0].Own, m.Volumes[0].Slots = slices.Clone(image.Own), slices.Clone(image.Slots)
				m.Boot()
			}
			back()
			_, err := m.Unlock(ctx, f.guest())
			refusedFor(t, kms.ReasonRestored, err)
			explained, err := f.Explain(ctx, "web-1")
			require.NoError(t, err)
			assert.Contains(t, explained.Advice, "keywright machine expect-restore web-1 --until")
			assert.Empty(t, f.orders())
			f.expectRestore(m, time.Hour)
			m.Boot()
			_, err = m.Unlock(ctx, f.guest())
			require.NoError(t, err)
			assert.True(t, m.Volumes[0].Key.Equal(old))
			assert.Zero(t, f.row(m).RestoreUntil, "it is used up")
			assert.Zero(t, f.alarms(kms.AlarmForeign), "somebody announced what came back")
			assert.EqualValues(t, 1, f.orders()[0].From)
			v := f.volume(m.Volumes[0].ID)
			_, err = f.WithdrawRekey(ctx, operator(), &v, "a test")
			requireState(t, err, "was restored from before a rekey")
			m.Boot()
			release, err := m.Unlock(ctx, f.guest())
			require.NoError(t, err, "the power failed before the rekey: its order lets the disk open again")
			if err := goOn(f, m); err == nil && len(f.orders()) > 0 {
				require.NoError(t, m.FinishRekey(ctx, f.guest(), 0, &release.Secrets[0]))
			} else {
				require.NoError(t, err)
			}
			assert.Equal(t, []kms.SecretStatus{kms.SecretRestoreOnly, kms.SecretRestoreOnly, kms.SecretCurrent}, f.statuses(m))
			assert.Empty(t, f.orders())
			f.unlock(m)
			assert.Zero(t, f.alarms(kms.AlarmForeign))
			back()
			_, err = m.Unlock(ctx, f.guest())
			refusedFor(t, kms.ReasonRestored, err)
		})
	}
}

// The machine turns out to be somebody else's meanwhile: its order is for a boot alone
// from then on, which the disk has to come to.
func TestRestoredDiskOpensForARekeyAtBoot(t *testing.T) {
	f, ctx := newFixture(t), t.Context()
	m := f.running("web-1")
	image := m.Volumes[0]
	image.Own, image.Slots = slices.Clone(image.Own), slices.Clone(image.Slots)
	f.order(m, false)
	require.NoError(t, m.Rekey(ctx, f.guest(), 0))
	f.rekeyed(m)
	m.Volumes[0].Own, m.Volumes[0].Slots = image.Own, image.Slots
	f.expectRestore(m, time.Hour)
	f.reboot(m)

	f.order(m, true)
	assert.EqualValues(t, 1, f.orders()[0].From)
	requireState(t, f.destroySecret(m, 1), "may need version 1 until")
	m.Boot()
	release, err := m.Unlock(ctx, f.guest())
	require.NoError(t, err)
	require.NoError(t, m.FinishRekey(ctx, f.guest(), 0, &release.Secrets[0]))
	assert.Empty(t, f.orders())
	f.unlock(m)
}
