package kms_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/test/sim"
)

// orderReencryption has the first volume of a machine reencrypted. Its person's
// keyslot may be lost.
func (f *fixture) orderReencryption(m *sim.Machine) {
	f.t.Helper()
	v := f.volume(m.Volumes[0].ID)
	order, err := f.OrderReencrypt(f.t.Context(), operator(), &v, "a test")
	require.NoError(f.t, err)
	require.Equal(f.t, []int{0}, numbersOf(order.Lost), "what a person opens it with")
	f.agree(m)
}

func (f *fixture) agree(m *sim.Machine) {
	f.t.Helper()
	v := f.volume(m.Volumes[0].ID)
	_, err := f.LoseKeyslots(f.t.Context(), operator(), &v, "she knows")
	require.NoError(f.t, err)
}

func numbersOf(slots []exchange.LUKSSlot) (numbers []int) {
	for _, s := range slots {
		numbers = append(numbers, s.ID)
	}
	return numbers
}

// reencrypted holds when a reencryption is over, and nothing of it is left.
func (f *fixture) reencrypted(m *sim.Machine, before kms.Volume) {
	f.t.Helper()
	f.rekeyed(m)
	v, own := f.volume(before.ID), &m.Volumes[0]
	assert.Equal(f.t, own.Identity[:], v.Identity)
	assert.NotEqual(f.t, before.Identity, v.Identity)
	assert.Equal(f.t, own.VolumeKeyDigest, v.VolumeKeyDigest)
	assert.Equal(f.t, f.Clock(), v.Reencrypted)
	assert.False(f.t, v.Foreign)
	key, err := f.DiscloseRecoveryKey(f.t.Context(), operator(), &v)
	require.NoError(f.t, err)
	assert.True(f.t, key.Equal(own.NewRecovery.Key), "people are shown the key that opens it")
	assert.False(f.t, key.Equal(own.Recovery))
}

func TestReencryptionOfARunningMachine(t *testing.T) {
	f := newFixture(t)
	m := f.running("web-1")
	before := f.volume(m.Volumes[0].ID)
	f.orderReencryption(m)
	require.NoError(t, m.Reencrypt(t.Context(), f.guest(), 0))
	f.reencrypted(m, before)
	entry := f.latest(kms.ActionReportRekey)
	assert.Equal(t, "volume/"+m.Volumes[0].ID, entry.Object)
}

func TestReencryptionWithoutARecoveryKey(t *testing.T) {
	f := newFixture(t)
	m := f.machine("web-1")
	m.NoRecoveryKey = true
	require.NoError(t, m.Enroll(t.Context(), f.guest()))
	f.approve(m)
	f.reboot(m)
	f.orderReencryption(m)
	require.NoError(t, m.Reencrypt(t.Context(), f.guest(), 0))
	assert.Nil(t, m.Volumes[0].NewRecovery)
	f.rekeyed(m)
}

// reencryptionSteps are what an agent does of an order, each of which may be the last.
func reencryptionSteps() []func(f *fixture, m *sim.Machine, got *exchange.ReleasedSecret) error {
	type step = func(f *fixture, m *sim.Machine, got *exchange.ReleasedSecret) error
	stage := func(s exchange.Stage, want exchange.RekeyStatus) step {
		return func(f *fixture, m *sim.Machine, _ *exchange.ReleasedSecret) error {
			return m.ReportStage(f.t.Context(), f.guest(), 0, s, want)
		}
	}
	ask := func(f *fixture, m *sim.Machine, got *exchange.ReleasedSecret) error {
		s, err := m.AskRekey(f.t.Context(), f.guest(), 0)
		if err == nil {
			*got = *s
		}
		return err
	}
	onDisk := func(do func(*sim.Volume, *exchange.ReleasedSecret)) step {
		return func(_ *fixture, m *sim.Machine, got *exchange.ReleasedSecret) error {
			do(&m.Volumes[0], got)
			return nil
		}
	}
	return []step{
		func(f *fixture, m *sim.Machine, got *exchange.ReleasedSecret) error {
			if err := ask(f, m, got); err != nil {
				return err
			}
			return m.FinishRekey(f.t.Context(), f.guest(), 0, got)
		},
		ask,
		onDisk(func(v *sim.Volume, got *exchange.ReleasedSecret) { v.AddRecovery(got) }),
		stage(exchange.StageReady, exchange.RekeyReady),
		onDisk(func(v *sim.Volume, _ *exchange.ReleasedSecret) { v.LoseKeyslots() }),
		onDisk(func(v *sim.Volume, _ *exchange.ReleasedSecret) { v.BeginReencryption() }),
		stage(exchange.StageBegun, exchange.RekeyReencrypting),
		stage(exchange.StageProgress, exchange.RekeyReencrypting),
		onDisk(func(v *sim.Volume, _ *exchange.ReleasedSecret) { v.EndReencryption() }),
		stage(exchange.StageDone, exchange.RekeyFinished),
	}
}

// TestReencryptionIsCutAnywhere has the power fail after each step: the machine boots,
// and the agent of the next boot goes on, also where the header has begun, or has ended,
// and the service did not hear of it.
func TestReencryptionIsCutAnywhere(t *testing.T) {
	steps := reencryptionSteps()
	for cut := range len(steps) {
		t.Run(fmt.Sprint(cut), func(t *testing.T) {
			f := newFixture(t)
			m := f.running("web-1")
			before := f.volume(m.Volumes[0].ID)
			f.orderReencryption(m)
			var got exchange.ReleasedSecret
			for _, step := range steps[:cut] {
				require.NoError(t, step(f, m, &got))
			}
			m.Boot()
			_, err := m.Unlock(t.Context(), f.guest())
			require.NoError(t, err, "cut after step %d", cut)
			assert.Zero(t, f.alarms(kms.AlarmForeign), "what is ordered is foreign to nobody")
			require.NoError(t, m.Reencrypt(t.Context(), f.guest(), 0))
			f.reencrypted(m, before)
		})
	}
}

// A person's keyslot is not lost before somebody agreed to that, and of one that
// turns up later, anew.
func TestReencryptionWaitsForAYes(t *testing.T) {
	f, ctx := newFixture(t), t.Context()
	m := f.running("web-1")
	before := f.volume(m.Volumes[0].ID)
	_, err := f.OrderReencrypt(ctx, operator(), &before, "a test")
	require.NoError(t, err)
	has := func(want bool) {
		t.Helper()
		ordered, err := f.HasOrders(ctx, m.TPM.Machine(), attested(requestOf(t, f, m)).Source)
		require.NoError(t, err)
		assert.Equal(t, want, ordered)
	}
	has(true)
	refusedFor(t, kms.ReasonOrder, m.Reencrypt(ctx, f.guest(), 0))
	assert.Equal(t, kms.OrderRekeyed, f.orders()[0].Status, "the rekey is over")
	has(false)
	_, err = f.OrderReencrypt(ctx, operator(), &before, "again")
	require.ErrorContains(t, err, "waits until somebody agrees")

	f.agree(m)
	has(true)
	_, err = f.LoseKeyslots(ctx, operator(), &before, "again")
	require.ErrorContains(t, err, "agreed already")
	got, err := m.AskRekey(ctx, f.guest(), 0)
	require.NoError(t, err)
	assert.Equal(t, []exchange.LUKSSlot{{ID: 0, Mark: m.Volumes[0].Slots[0].Mark}}, got.Reencrypt.Lose)
	m.Volumes[0].AddRecovery(got)
	m.Volumes[0].Slots = append(m.Volumes[0].Slots, exchange.LUKSSlot{ID: 5, KDF: "argon2id", Mark: "01234567"})
	require.NoError(t, m.ReportStage(ctx, f.guest(), 0, exchange.StageReady, exchange.RekeyRekeyed))
	assert.Equal(t, []int{0, 5}, numbersOf(f.orders()[0].Lost))
	refusedFor(t, kms.ReasonOrder, m.Reencrypt(ctx, f.guest(), 0))
	f.agree(m)
	require.NoError(t, m.Reencrypt(ctx, f.guest(), 0))
	f.reencrypted(m, before)
}

// One that turns up once the others may be lost fails the machine: that is agreed to
// anew as well, or the reencryption taken back.
func TestReencryptionWaitsForAYesToWhatTurnsUpLate(t *testing.T) {
	for name, end := range map[string]func(f *fixture, m *sim.Machine, before kms.Volume){
		"agreed": func(f *fixture, m *sim.Machine, before kms.Volume) {
			f.agree(m)
			require.NoError(f.t, m.Reencrypt(f.t.Context(), f.guest(), 0))
			f.reencrypted(m, before)
		},
		"withdrawn": func(f *fixture, m *sim.Machine, before kms.Volume) {
			_, err := f.WithdrawRekey(f.t.Context(), operator(), &before, "she needs it")
			require.NoError(f.t, err)
			f.reboot(m)
			assert.Empty(f.t, f.orders())
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			m := f.running("web-1")
			before := f.volume(m.Volumes[0].ID)
			f.orderReencryption(m)
			var got exchange.ReleasedSecret
			for _, step := range reencryptionSteps()[:4] {
				require.NoError(t, step(f, m, &got))
			}
			m.Volumes[0].Slots = append(m.Volumes[0].Slots, exchange.LUKSSlot{ID: 5, KDF: "argon2id", Mark: "01234567"})
			_, err := m.Report(t.Context(), f.guest(), 0, exchange.RekeyedDetails{Version: 2, Fault: "it would lose 5"})
			require.NoError(t, err)
			assert.Equal(t, []int{0, 5}, numbersOf(f.orders()[0].Lost))
			require.True(t, f.orders()[0].Waits())
			refusedFor(t, kms.ReasonOrder, m.ReportStage(t.Context(), f.guest(), 0, exchange.StageReady, exchange.RekeyReady))
			end(f, m, before)
		})
	}
}

func requestOf(t *testing.T, f *fixture, m *sim.Machine) (a api.Attested) {
	t.Helper()
	r, err := m.PrepareRekey(t.Context(), f.guest(), 0)
	require.NoError(t, err)
	a, err = r.Attest()
	require.NoError(t, err)
	return a
}

func TestReencryptionIsOrderedOnce(t *testing.T) {
	f, ctx := newFixture(t), t.Context()
	m := f.running("web-1")
	v := f.volume(m.Volumes[0].ID)
	_, err := f.LoseKeyslots(ctx, operator(), &v, "a test")
	require.ErrorContains(t, err, "no reencryption")
	f.order(m, false)
	_, err = f.OrderReencrypt(ctx, operator(), &v, "a test")
	require.ErrorContains(t, err, "a rekey of volume/"+v.ID+" is ordered already")
	require.NoError(t, m.Rekey(ctx, f.guest(), 0))
	f.orderReencryption(m)
	_, err = f.OrderReencrypt(ctx, operator(), &v, "a test")
	require.ErrorContains(t, err, "a reencrypt of volume/"+v.ID+" is ordered already")
	_, err = f.OrderRekey(ctx, operator(), &v, "a test", false)
	require.ErrorContains(t, err, "which begins with a rekey")
}

// It can be taken back until a running system was given what it begins with.
func TestWithdrawnReencryption(t *testing.T) {
	steps := reencryptionSteps()
	for cut := range len(steps) {
		t.Run(fmt.Sprint(cut), func(t *testing.T) {
			f, ctx := newFixture(t), t.Context()
			m := f.running("web-1")
			v := f.volume(m.Volumes[0].ID)
			f.orderReencryption(m)
			var got exchange.ReleasedSecret
			for _, step := range steps[:cut] {
				require.NoError(t, step(f, m, &got))
			}
			_, err := f.WithdrawRekey(ctx, operator(), &v, "a test")
			if cut < 2 {
				require.NoError(t, err)
				f.reboot(m)
				assert.Empty(t, f.orders())
				return
			}
			require.ErrorContains(t, err, "has begun on its disk")
		})
	}
}

// A reencryption may take many restarts: what it needs is handed out as long as it gets
// on, and no more than a few times else.
func TestDeliveriesOfAReencryptionAreBounded(t *testing.T) {
	f, ctx := newFixture(t), t.Context()
	m := f.running("web-1")
	f.orderReencryption(m)
	var got exchange.ReleasedSecret
	for _, step := range reencryptionSteps()[:7] {
		require.NoError(t, step(f, m, &got))
	}
	for range 8 {
		f.clock.Advance(time.Minute)
		_, err := m.AskRekey(ctx, f.guest(), 0)
		require.NoError(t, err)
		require.NoError(t, m.ReportStage(ctx, f.guest(), 0, exchange.StageBegun, exchange.RekeyReencrypting), "as each run says")
	}
	f.clock.Advance(time.Minute)
	_, err := m.AskRekey(ctx, f.guest(), 0)
	refusedFor(t, kms.ReasonHandedOut, err)
	require.NoError(t, m.ReportStage(ctx, f.guest(), 0, exchange.StageProgress, exchange.RekeyReencrypting))
	assert.Equal(t, kms.Progress{Done: 1 << 30, Total: 4 << 30, Rate: 1 << 20, Left: 3072 * time.Second, At: f.Clock()}, f.orders()[0].Progress)
	_, err = m.AskRekey(ctx, f.guest(), 0)
	require.NoError(t, err)
	entries, err := f.store.LatestEntries(ctx, m.TPM.Machine(), kms.ActionReportRekey, 100)
	require.NoError(t, err)
	require.NoError(t, m.ReportStage(ctx, f.guest(), 0, exchange.StageProgress, exchange.RekeyReencrypting))
	after, err := f.store.LatestEntries(ctx, m.TPM.Machine(), kms.ActionReportRekey, 100)
	require.NoError(t, err)
	assert.Len(t, after, len(entries), "progress is no entry of the log")
}

// One that never gets on is tried again after a boot, at the rate that is set by then.
func TestReencryptionThatFailsIsDeliveredAgainAfterABoot(t *testing.T) {
	f, ctx := newFixture(t), t.Context()
	m := f.running("web-1")
	before := f.volume(m.Volumes[0].ID)
	f.orderReencryption(m)
	var got exchange.ReleasedSecret
	require.NoError(t, reencryptionSteps()[0](f, m, &got))
	for range 8 {
		f.clock.Advance(time.Minute)
		again, err := m.AskRekey(ctx, f.guest(), 0)
		require.NoError(t, err)
		assert.Zero(t, again.Reencrypt.Rate)
		_, err = m.Report(ctx, f.guest(), 0, exchange.RekeyedDetails{Version: 2, Fault: "no keyslot is free"})
		require.NoError(t, err)
	}
	_, err := m.AskRekey(ctx, f.guest(), 0)
	refusedFor(t, kms.ReasonHandedOut, err)
	assert.Equal(t, "no keyslot is free", f.orders()[0].Fault)
	f.ReencryptRate = 50 << 20
	f.reboot(m)
	again, err := m.AskRekey(ctx, f.guest(), 0)
	require.NoError(t, err)
	assert.EqualValues(t, 50<<20, again.Reencrypt.Rate)
	require.NoError(t, m.Reencrypt(ctx, f.guest(), 0))
	f.reencrypted(m, before)
}

// A disk that is put back from before its reencryption began is reencrypted anew.
func TestReencryptionOfADiskThatIsPutBack(t *testing.T) {
	f := newFixture(t)
	m := f.running("web-1")
	before := f.volume(m.Volumes[0].ID)
	f.orderReencryption(m)
	var got exchange.ReleasedSecret
	steps := reencryptionSteps()
	for _, step := range steps[:4] {
		require.NoError(t, step(f, m, &got))
	}
	image := m.Volumes[0]
	for _, step := range steps[4:7] {
		require.NoError(t, step(f, m, &got))
	}
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
				var got exchange.ReleasedSecret
				for _, step := range steps[:c.done] {
					require.NoError(t, step(f, m, &got))
				}
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
		var got exchange.ReleasedSecret
		for _, step := range steps[:7] {
			require.NoError(t, step(f, m, &got))
		}
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
		var got exchange.ReleasedSecret
		for _, step := range steps[:4] {
			require.NoError(t, step(f, m, &got))
		}
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
	var got exchange.ReleasedSecret
	for _, step := range reencryptionSteps()[:4] {
		require.NoError(t, step(f, m, &got))
	}
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
