package kms_test

import (
	"fmt"
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
	key, err := f.DiscloseRecoveryKey(f.t.Context(), operator(), &v, 0)
	require.NoError(f.t, err)
	assert.True(f.t, key.Equal(own.NewRecovery.Key), "people are shown the key that opens it")
	assert.False(f.t, key.Equal(own.Recovery))
	key, err = f.DiscloseRecoveryKey(f.t.Context(), operator(), &v, 1)
	require.NoError(f.t, err)
	assert.True(f.t, key.Equal(own.Recovery), "and, of images from before, the key that opens these")
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
func reencryptionSteps() []agentStep {
	stage := func(s exchange.Stage, want exchange.RekeyStatus) agentStep {
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
	onDisk := func(do func(*sim.Volume, *exchange.ReleasedSecret)) agentStep {
		return func(_ *fixture, m *sim.Machine, got *exchange.ReleasedSecret) error {
			do(&m.Volumes[0], got)
			return nil
		}
	}
	return []agentStep{
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
			f.carryOut(m, steps[:cut])
			m.Boot()
			_, err := m.Unlock(t.Context(), f.guest())
			require.NoError(t, err, "cut after step %d", cut)
			assert.Zero(t, f.alarms(kms.AlarmForeign), "what is ordered is foreign to nobody")
			require.NoError(t, m.Reencrypt(t.Context(), f.guest(), 0))
			f.reencrypted(m, before)
		})
	}
}

// A recovery key is shown once the header is known to have it, and not before.
func TestRecoveryKeyThatIsPendingIsShownToNobody(t *testing.T) {
	f := newFixture(t)
	m := f.running("web-1")
	v := f.volume(m.Volumes[0].ID)
	f.orderReencryption(m)
	var got exchange.ReleasedSecret
	shown := 0
	for _, step := range reencryptionSteps() {
		key, err := f.DiscloseRecoveryKey(t.Context(), operator(), &v, 0)
		require.NoError(t, err)
		next, err := f.DiscloseRecoveryKey(t.Context(), operator(), &v, 2)
		if key.Equal(m.Volumes[0].Recovery) {
			require.ErrorContains(t, err, "it has no version 2 of a recovery key")
		} else {
			require.NoError(t, err)
			assert.True(t, next.Equal(key))
			shown++
		}
		require.NoError(t, step(f, m, &got))
	}
	assert.Positive(t, shown)
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
			f.carryOut(m, steps[:cut])
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
	f.carryOut(m, reencryptionSteps()[:7])
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
	f.carryOut(m, reencryptionSteps()[:1])
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
