package kms_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/exchange"
	"keywright.dev/test/sim"
)

// A disk that is put back from before its reencryption began is reencrypted anew.
func TestReencryptionOfADiskThatIsPutBack(t *testing.T) {
	f := newFixture(t)
	m := f.running("web-1")
	before := f.volume(m.Volumes[0].ID)
	f.orderReencryption(m)
	steps := reencryptionSteps()
	f.carryOut(m, steps[:4])
	image := m.Volumes[0]
	f.carryOut(m, steps[4:7])
	m.Volumes[0] = image
	f.reboot(m)
	require.NoError(t, m.Reencrypt(t.Context(), f.guest(), 0))
	f.reencrypted(m, before)
}

// TestAttack12ForgedReencryption shows the service headers under reencryption, and ones
// that claim to be what a reencryption ended with: it wants them while it ordered one of
// this very volume, and then those alone that follow from the header that was enrolled.
func TestAttack12ForgedReencryption(t *testing.T) {
	steps := reencryptionSteps()
	for name, c := range map[string]struct {
		done   int // of the steps
		forge  func(v *sim.Volume)
		reason kms.Reason
	}{
		"nothing ordered":         {-1, (*sim.Volume).BeginReencryption, kms.ReasonOrder},
		"rekey not over":          {0, (*sim.Volume).BeginReencryption, kms.ReasonOrder},
		"keyslots not ready":      {2, (*sim.Volume).BeginReencryption, kms.ReasonOrder},
		"made of another header":  {4, func(v *sim.Volume) { v.Identity[0] ^= 1; v.BeginReencryption() }, kms.ReasonVolume},
		"becomes what it was":     {4, becomes(func(v *sim.Volume) [32]byte { return v.Identity }), kms.ReasonVolume},
		"in between alone":        {4, func(v *sim.Volume) { v.BeginReencryption(); v.Becomes = nil }, kms.ReasonVolume},
		"ended without beginning": {4, func(v *sim.Volume) { v.BeginReencryption(); v.EndReencryption() }, kms.ReasonVolume},
		"other end than begun":    {7, func(v *sim.Volume) { v.EndReencryption(); v.Identity[0] ^= 1 }, kms.ReasonVolume},
		"cut short":               {7, func(v *sim.Volume) { v.Becomes = v.Becomes[:31] }, kms.ReasonVolume},
	} {
		t.Run(name, func(t *testing.T) {
			f, ctx := newFixture(t), t.Context()
			m := f.running("web-1")
			if c.done >= 0 {
				f.orderReencryption(m)
				f.carryOut(m, steps[:c.done])
			}
			c.forge(&m.Volumes[0])
			_, err := m.AskRekey(ctx, f.guest(), 0)
			refusedFor(t, c.reason, err)
			m.Boot()
			_, err = m.Unlock(ctx, f.guest())
			refusedFor(t, c.reason, err)
			assert.Equal(t, string(c.reason), f.lastEntry(m.TPM.Machine()).Code)
		})
	}
	t.Run("another one than begun", func(t *testing.T) {
		f, ctx := newFixture(t), t.Context()
		m := f.running("web-1")
		before := m.Volumes[0].Identity
		f.orderReencryption(m)
		f.carryOut(m, steps[:7])
		other := [32]byte(m.Volumes[0].Becomes)
		other[0] ^= 1
		m.Volumes[0].Becomes, m.Volumes[0].Identity = other[:], exchange.UnderReencryption(before, other)
		_, err := m.AskRekey(ctx, f.guest(), 0)
		refusedFor(t, kms.ReasonVolume, err)
		m.Boot()
		_, err = m.Unlock(ctx, f.guest())
		refusedFor(t, kms.ReasonVolume, err)
		m.Volumes[0].Becomes, m.Volumes[0].Identity = nil, other
		_, err = m.Unlock(ctx, f.guest())
		refusedFor(t, kms.ReasonVolume, err)
	})
	t.Run("of another volume", func(t *testing.T) {
		f, ctx := newFixture(t), t.Context()
		m := f.running("web-1")
		f.orderReencryption(m)
		f.carryOut(m, steps[:4])
		m.Volumes[1].BeginReencryption()
		_, err := m.AskRekey(ctx, f.guest(), 1)
		refusedFor(t, kms.ReasonOrder, err)
		m.Boot()
		_, err = m.Unlock(ctx, f.guest())
		refusedFor(t, kms.ReasonOrder, err)
	})
	t.Run("after its end", func(t *testing.T) {
		f, ctx := newFixture(t), t.Context()
		m := f.running("web-1")
		before := m.Volumes[0].Identity
		f.orderReencryption(m)
		require.NoError(t, m.Reencrypt(ctx, f.guest(), 0))
		now := m.Volumes[0].Identity
		m.Volumes[0].Becomes, m.Volumes[0].Identity = now[:], exchange.UnderReencryption(before, now)
		m.Boot()
		_, err := m.Unlock(ctx, f.guest())
		refusedFor(t, kms.ReasonOrder, err)
		m.Volumes[0].Becomes, m.Volumes[0].Identity = nil, before
		_, err = m.Unlock(ctx, f.guest())
		refusedFor(t, kms.ReasonVolume, err)
	})
}

func becomes(what func(*sim.Volume) [32]byte) func(*sim.Volume) {
	return func(v *sim.Volume) {
		becomes := what(v)
		v.Becomes, v.Identity = becomes[:], exchange.UnderReencryption(v.Identity, becomes)
	}
}

func TestReportsOfAReencryptionAreHeldAgainstTheOrder(t *testing.T) {
	f, ctx := newFixture(t), t.Context()
	m := f.running("web-1")
	report := func(d exchange.RekeyedDetails) error {
		d.Version = 2
		_, err := m.Report(ctx, f.guest(), 0, d)
		return err
	}
	stage := func(s exchange.Stage) error { return report(exchange.RekeyedDetails{Reencryption: s}) }
	f.order(m, false)
	require.NoError(t, func() error { _, err := m.AskRekey(ctx, f.guest(), 0); return err }())
	refusedFor(t, kms.ReasonOrder, stage(exchange.StageReady))
	v := f.volume(m.Volumes[0].ID)
	_, err := f.WithdrawRekey(ctx, operator(), &v, "a test")
	require.NoError(t, err)

	f.orderReencryption(m)
	var got exchange.ReleasedSecret
	steps := reencryptionSteps()
	require.NoError(t, steps[0](f, m, &got))
	refusedFor(t, kms.ReasonOrder, stage(exchange.StageReady))
	require.NoError(t, steps[1](f, m, &got))
	refusedFor(t, kms.ReasonVolume, stage(exchange.StageReady))
	refusedFor(t, kms.ReasonOrder, stage(exchange.StageBegun))
	for name, d := range map[string]exchange.RekeyedDetails{
		"unknown":           {Reencryption: "ended"},
		"no progress":       {Reencryption: exchange.StageProgress},
		"too much progress": {Reencryption: exchange.StageProgress, Progress: &exchange.Progress{Done: 2, Total: 1}},
		"progress of none":  {Progress: &exchange.Progress{}},
		"done twice":        {Reencryption: exchange.StageDone, Done: true},
		"and a fault":       {Reencryption: exchange.StageDone, Fault: "it is not"},
	} {
		t.Run(name, func(t *testing.T) { refusedFor(t, kms.ReasonMalformed, report(d)) })
	}
	require.NoError(t, steps[2](f, m, &got))
	require.NoError(t, stage(exchange.StageReady))
	require.NoError(t, stage(exchange.StageReady), "a report may be repeated")
	f.clock.Advance(5 * time.Minute) // it asked often
	refusedFor(t, kms.ReasonVolume, stage(exchange.StageBegun))
	refusedFor(t, kms.ReasonOrder, stage(exchange.StageDone))
	require.NoError(t, m.Reencrypt(ctx, f.guest(), 0))
}

// A disk that is put back from before the rekey of a reencryption is held as any other,
// and reencrypted from the beginning.
func TestReencryptionOfARestoredDisk(t *testing.T) {
	f, ctx := newFixture(t), t.Context()
	m := f.running("web-1")
	before, image := f.volume(m.Volumes[0].ID), m.Volumes[0]
	image.Own, image.Slots = slices.Clone(image.Own), slices.Clone(image.Slots)
	f.orderReencryption(m)
	f.carryOut(m, reencryptionSteps()[:4])
	m.Volumes[0] = image
	m.Boot()
	_, err := m.Unlock(ctx, f.guest())
	refusedFor(t, kms.ReasonRestored, err)
	f.expectRestore(m, time.Hour)
	m.Boot()
	_, err = m.Unlock(ctx, f.guest())
	require.NoError(t, err)
	order := f.orders()[0]
	assert.Equal(t, []any{kms.KindReencrypt, kms.OrderOpen, uint32(1)}, []any{order.Kind, order.Status, order.From})
	refusedFor(t, kms.ReasonOrder, m.Reencrypt(ctx, f.guest(), 0))
	f.agree(m)
	require.NoError(t, m.Reencrypt(ctx, f.guest(), 0))
	v := f.volume(before.ID)
	assert.NotEqual(t, before.Identity, v.Identity)
	assert.Empty(t, f.orders())
	f.unlock(m)
	assert.Zero(t, f.alarms(kms.AlarmForeign))
}

// A machine that enrols again in the middle leaves nothing that nobody has.
func TestEnrolmentEndsWhatAReencryptionMade(t *testing.T) {
	f, ctx := newFixture(t), t.Context()
	m := f.running("web-1")
	f.orderReencryption(m)
	f.carryOut(m, reencryptionSteps()[:2])
	former := m.Volumes[0].ID
	f.readmit(m, kms.Readmission{Reenroll: true})
	require.NoError(t, m.Enroll(ctx, f.guest()))
	secrets, err := f.store.Secrets(ctx, former)
	require.NoError(t, err)
	require.NotEmpty(t, secrets)
	for _, s := range secrets {
		assert.NotEqual(t, kms.SecretPending, s.Status, s.Purpose)
	}
}
