package kms_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/audit"
	"keywright.dev/kms/exchange"
	"keywright.dev/test/sim"
)

// order has the first volume of a machine rekeyed.
func (f *fixture) order(m *sim.Machine, atBoot bool) {
	f.t.Helper()
	v := f.volume(m.Volumes[0].ID)
	_, err := f.OrderRekey(f.t.Context(), operator(), &v, "a test", atBoot)
	require.NoError(f.t, err)
}

func (f *fixture) orders() []kms.Order {
	f.t.Helper()
	orders, err := f.store.Orders(f.t.Context(), "", 100)
	require.NoError(f.t, err)
	return orders
}

// statuses are those of the secrets for boots of a machine's first volume.
func (f *fixture) statuses(m *sim.Machine) (statuses []kms.SecretStatus) {
	f.t.Helper()
	for _, s := range f.secretsOf(m) {
		if s.Volume == m.Volumes[0].ID && s.Purpose == kms.PurposeKeyslot {
			statuses = append(statuses, s.Status)
		}
	}
	return statuses
}

// rekeyed holds when a rekey is over, and nothing of it is left.
func (f *fixture) rekeyed(m *sim.Machine) {
	f.t.Helper()
	assert.Empty(f.t, f.orders())
	assert.Equal(f.t, []kms.SecretStatus{kms.SecretRestoreOnly, kms.SecretCurrent}, f.statuses(m))
	require.Len(f.t, m.Volumes[0].Own, 1)
	assert.EqualValues(f.t, 2, m.Volumes[0].Own[0].Version)
	f.unlock(m)
	assert.Zero(f.t, f.alarms(kms.AlarmForeign))
	assert.True(f.t, m.Volumes[0].Key.Equal(m.Volumes[0].Own[0].Key))
}

func refusedFor(t *testing.T, reason kms.Reason, err error) {
	t.Helper()
	var refusal *kms.Refusal
	require.ErrorAs(t, err, &refusal)
	assert.Equal(t, reason, refusal.Reason, refusal.Detail)
}

func TestRekeyOfARunningMachine(t *testing.T) {
	f := newFixture(t)
	m := f.running("web-1")
	before := m.Volumes[0].Key.Clone()
	f.order(m, false)
	require.NoError(t, m.Rekey(t.Context(), f.guest(), 0))
	f.rekeyed(m)
	assert.False(t, m.Volumes[0].Key.Equal(before))
	entry := f.latest(kms.ActionReportRekey)
	assert.Equal(t, "volume/"+m.Volumes[0].ID, entry.Object)
}

// agentStep is one thing that an agent does of an order.
type agentStep func(f *fixture, m *sim.Machine, got *exchange.ReleasedSecret) error

// carryOut has a machine do some of the steps of its order.
func (f *fixture) carryOut(m *sim.Machine, steps []agentStep) {
	f.t.Helper()
	var got exchange.ReleasedSecret
	for _, step := range steps {
		require.NoError(f.t, step(f, m, &got))
	}
}

// TestRekeyIsCutAnywhere has the power fail after each step: the machine boots, and
// the boot's release, or the agent after it, goes on.
func TestRekeyIsCutAnywhere(t *testing.T) {
	steps := []agentStep{
		func(f *fixture, m *sim.Machine, got *exchange.ReleasedSecret) error {
			s, err := m.AskRekey(f.t.Context(), f.guest(), 0)
			if err == nil {
				*got = *s
			}
			return err
		},
		func(_ *fixture, m *sim.Machine, got *exchange.ReleasedSecret) error {
			m.Volumes[0].AddKeyslot(got.NextVersion, got.Next)
			return nil
		},
		func(f *fixture, m *sim.Machine, got *exchange.ReleasedSecret) error {
			_, err := m.Report(f.t.Context(), f.guest(), 0, exchange.RekeyedDetails{Version: got.NextVersion})
			return err
		},
		func(_ *fixture, m *sim.Machine, got *exchange.ReleasedSecret) error {
			m.Volumes[0].KillKeyslots(got.NextVersion)
			return nil
		},
		func(f *fixture, m *sim.Machine, got *exchange.ReleasedSecret) error {
			_, err := m.Report(f.t.Context(), f.guest(), 0, exchange.RekeyedDetails{Version: got.NextVersion, Done: true})
			return err
		},
	}
	for cut := range len(steps) {
		for name, finish := range map[string]func(*fixture, *sim.Machine, *exchange.Release) error{
			"by the boot": func(f *fixture, m *sim.Machine, release *exchange.Release) error {
				return m.FinishRekey(f.t.Context(), f.guest(), 0, &release.Secrets[0])
			},
			"by the agent": func(f *fixture, m *sim.Machine, _ *exchange.Release) error {
				return m.Rekey(f.t.Context(), f.guest(), 0)
			},
		} {
			t.Run(name, func(t *testing.T) {
				f := newFixture(t)
				m := f.running("web-1")
				f.order(m, false)
				f.carryOut(m, steps[:cut])
				m.Boot()
				release, err := m.Unlock(t.Context(), f.guest())
				require.NoError(t, err, "cut after step %d", cut)
				assert.Zero(t, f.alarms(kms.AlarmForeign), "what is ordered is foreign to nobody")
				if len(f.orders()) > 0 { // else the boot itself showed that it is over
					require.NoError(t, finish(f, m, release))
				}
				f.rekeyed(m)
			})
		}
	}
}

// TestAttack18NextSecretIsFresh rotates a keyring whose version was compromised:
// what a rekey makes then was never under it.
func TestAttack18NextSecretIsFresh(t *testing.T) {
	f := newFixture(t)
	m := f.running("web-1")
	old := m.Volumes[0].Key.Clone()
	f.order(m, true)
	f.rotate(kms.DefaultKeyring)
	m.Boot()
	release, err := m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)
	assert.False(t, release.Secrets[0].Next.Equal(old))
	require.NoError(t, m.FinishRekey(t.Context(), f.guest(), 0, &release.Secrets[0]))
	f.rekeyed(m)
	for _, s := range f.secretsOf(m) {
		if s.Volume == m.Volumes[0].ID && s.Status == kms.SecretCurrent && s.Purpose == kms.PurposeKeyslot {
			assert.EqualValues(t, 2, s.KeyringVersion)
		}
	}
}

// An order for a boot alone that is cut after the old keyslot was removed ends with
// the next boot, which shows that it is gone.
func TestBootEndsACommittedOrder(t *testing.T) {
	f, ctx := newFixture(t), t.Context()
	m := f.running("web-1")
	f.order(m, true)
	m.Boot()
	release, err := m.Unlock(ctx, f.guest())
	require.NoError(t, err)
	m.Volumes[0].AddKeyslot(2, release.Secrets[0].Next)
	_, err = m.Report(ctx, f.guest(), 0, exchange.RekeyedDetails{Version: 2})
	require.NoError(t, err)
	f.unlock(m)
	assert.Len(t, f.orders(), 1, "both keyslots are there")
	m.Volumes[0].KillKeyslots(2)
	left := exchange.LUKSToken{ID: 7, Type: "keywright", Slots: []int{}, Volume: m.Volumes[0].ID, Version: 1}
	m.Volumes[0].Tokens = append(m.Volumes[0].Tokens, left)
	f.unlock(m)
	assert.Len(t, f.orders(), 1, "its token is left")
	m.Volumes[0].Tokens = nil
	f.unlock(m)
	f.rekeyed(m)
}

func TestDeliveryIsBounded(t *testing.T) {
	f, ctx := newFixture(t), t.Context()
	m := f.running("web-1")
	_, err := m.AskRekey(ctx, f.guest(), 0)
	refusedFor(t, kms.ReasonOrder, err)
	f.order(m, false)
	_, err = m.AskRekey(ctx, f.guest(), 1)
	refusedFor(t, kms.ReasonOrder, err)

	for name, falsify := range map[string]func(*sim.Request){
		"both volumes": func(r *sim.Request) { r.Statement.Volumes = append(r.Statement.Volumes, m.Volumes[1].Volume) },
		"none":         func(r *sim.Request) { r.Statement.Volumes = nil },
		"identity":     func(r *sim.Request) { r.Statement.Volumes[0].Identity[0] ^= 1 },
	} {
		t.Run(name, func(t *testing.T) {
			r, err := m.PrepareRekey(ctx, f.guest(), 0)
			require.NoError(t, err)
			falsify(r)
			_, err = r.Rekey(ctx, f.guest())
			refusedFor(t, kms.ReasonVolume, err)
		})
	}
	first, err := m.AskRekey(ctx, f.guest(), 0)
	require.NoError(t, err)
	for range 7 {
		again, err := m.AskRekey(ctx, f.guest(), 0)
		require.NoError(t, err)
		assert.True(t, again.Next.Equal(first.Next), "the same secret as long as it is not committed")
	}
	_, err = m.AskRekey(ctx, f.guest(), 0)
	refusedFor(t, kms.ReasonHandedOut, err)
	m.Boot()
	release, err := m.Unlock(ctx, f.guest())
	require.NoError(t, err)
	f.clock.Advance(10 * time.Minute) // it asked often
	require.NoError(t, m.FinishRekey(ctx, f.guest(), 0, &release.Secrets[0]), "a boot goes on with it")
	f.rekeyed(m)
}

// A system that did not have this volume's key from here in this very boot, or of
// which nobody approves any more, gets nothing at run time.
func TestOnlyARunningReleasedBootIsRekeyed(t *testing.T) {
	for name, c := range map[string]struct {
		reason kms.Reason
		change func(*fixture, *sim.Machine)
	}{
		"before its release": {kms.ReasonUnreleased, func(_ *fixture, m *sim.Machine) { m.Boot() }},
		"released without the volume": {kms.ReasonVolume, func(f *fixture, m *sim.Machine) {
			m.Boot()
			part := *m
			part.Volumes = m.Volumes[1:]
			_, err := part.Unlock(f.t.Context(), f.guest())
			require.NoError(f.t, err)
		}},
		"revoked": {kms.ReasonRevoked, func(f *fixture, m *sim.Machine) {
			_, _, err := f.RevokeMachine(f.t.Context(), operator(), "web-1", "lost")
			require.NoError(f.t, err)
		}},
		"at boot alone": {kms.ReasonOrder, func(f *fixture, m *sim.Machine) { f.order(m, true) }},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			m := f.running("web-1")
			f.order(m, false)
			c.change(f, m)
			_, err := m.AskRekey(t.Context(), f.guest(), 0)
			refusedFor(t, c.reason, err)
		})
	}
}

// An order that is for a boot alone by now makes another secret than the one that
// the running system saw.
func TestOrderBecomesOneAtBoot(t *testing.T) {
	f, ctx := newFixture(t), t.Context()
	m := f.running("web-1")
	f.order(m, false)
	seen, err := m.AskRekey(ctx, f.guest(), 0)
	require.NoError(t, err)
	f.order(m, true)
	assert.Equal(t, []kms.SecretStatus{kms.SecretCurrent}, f.statuses(m))
	m.Boot()
	release, err := m.Unlock(ctx, f.guest())
	require.NoError(t, err)
	assert.False(t, release.Secrets[0].Next.Equal(seen.Next))
	v := f.volume(m.Volumes[0].ID)
	_, err = f.OrderRekey(ctx, operator(), &v, "again", false)
	require.ErrorContains(t, err, "ordered already")
}

func TestReportsAreHeldAgainstTheOrder(t *testing.T) {
	f, ctx := newFixture(t), t.Context()
	m := f.running("web-1")
	report := func(d exchange.RekeyedDetails) error {
		_, err := m.Report(ctx, f.guest(), 0, d)
		return err
	}
	refusedFor(t, kms.ReasonOrder, report(exchange.RekeyedDetails{Version: 2}))
	f.order(m, false)
	got, err := m.AskRekey(ctx, f.guest(), 0)
	require.NoError(t, err)
	refusedFor(t, kms.ReasonVolume, report(exchange.RekeyedDetails{Version: 2}))
	m.Volumes[0].AddKeyslot(2, got.Next)
	refusedFor(t, kms.ReasonOrder, report(exchange.RekeyedDetails{Version: 3}))
	refusedFor(t, kms.ReasonOrder, report(exchange.RekeyedDetails{Version: 2, Done: true}))
	refusedFor(t, kms.ReasonMalformed, report(exchange.RekeyedDetails{Version: 2, Done: true, Fault: "both"}))
	refusedFor(t, kms.ReasonMalformed, report(exchange.RekeyedDetails{Version: 2, Fault: "\x1b[2J"}))
	require.NoError(t, report(exchange.RekeyedDetails{Version: 2}))
	require.NoError(t, report(exchange.RekeyedDetails{Version: 2}), "a report may be repeated")
	refusedFor(t, kms.ReasonVolume, report(exchange.RekeyedDetails{Version: 2, Done: true}))
	m.Volumes[0].KillKeyslots(2)
	require.NoError(t, report(exchange.RekeyedDetails{Version: 2, Done: true}))
	f.rekeyed(m)
}

func TestFaultOfARekeyIsKept(t *testing.T) {
	f, ctx := newFixture(t), t.Context()
	m := f.running("web-1")
	f.order(m, false)
	_, err := m.AskRekey(ctx, f.guest(), 0)
	require.NoError(t, err)
	answer, err := m.Report(ctx, f.guest(), 0, exchange.RekeyedDetails{Version: 2, Fault: "no keyslot is free"})
	require.NoError(t, err)
	assert.Equal(t, exchange.RekeyAnswer{Version: 2, Status: exchange.RekeyOpen}, answer)
	order := f.orders()[0]
	assert.Equal(t, []any{"no keyslot is free", 1}, []any{order.Fault, order.Faults})
	assert.Equal(t, audit.Failed, f.latest(kms.ActionReportRekey).Outcome)
	require.NoError(t, m.Rekey(ctx, f.guest(), 0))
	f.rekeyed(m)
}

// TestAttack20KilledKeyslotComesBack restores what a rekey removed.
func TestAttack20KilledKeyslotComesBack(t *testing.T) {
	f := newFixture(t)
	m := f.running("web-1")
	slots, own := m.Volumes[0].Slots, m.Volumes[0].Own[0]
	f.order(m, false)
	require.NoError(t, m.Rekey(t.Context(), f.guest(), 0))
	f.rekeyed(m)
	m.Volumes[0].Own = append(m.Volumes[0].Own, own)
	m.Volumes[0].Slots = append(m.Volumes[0].Slots, slots[own.Slot])
	f.reboot(m)
	assert.EqualValues(t, 1, f.alarms(kms.AlarmForeign))
}

// TestSecretsTellWhoHadThem holds what a plan after a compromise depends on: which
// secrets boots alone were given, and when one was replaced.
func TestSecretsTellWhoHadThem(t *testing.T) {
	f := newFixture(t)
	m := f.running("web-1")
	first, _ := f.keyslots(m)
	assert.False(t, first.AtBoot, "an enrolment runs in a system that is up")

	f.order(m, true)
	m.Boot()
	release, err := m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)
	f.clock.Advance(time.Minute)
	require.NoError(t, m.FinishRekey(t.Context(), f.guest(), 0, &release.Secrets[0]))
	first, second := f.keyslots(m)
	assert.True(t, second.AtBoot)
	assert.Zero(t, second.Replaced)
	assert.Equal(t, f.Clock(), first.Replaced)

	f.order(m, false)
	_, err = m.AskRekey(t.Context(), f.guest(), 0)
	require.NoError(t, err)
	second, third := f.keyslots(m)
	assert.False(t, second.AtBoot, "the running system was given it, to add the next")
	assert.False(t, third.AtBoot)
}

// TestBootsSecretIsGivenToTheRunningSystem has an order begin with a boot, and go on
// while the machine runs.
func TestBootsSecretIsGivenToTheRunningSystem(t *testing.T) {
	f := newFixture(t)
	m := f.running("web-1")
	f.order(m, false)
	m.Boot()
	_, err := m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)
	_, next := f.keyslots(m)
	assert.True(t, next.AtBoot)
	_, err = m.AskRekey(t.Context(), f.guest(), 0)
	require.NoError(t, err)
	_, next = f.keyslots(m)
	assert.False(t, next.AtBoot)
}

// keyslots returns the newest two secrets for boots of a machine's first volume.
func (f *fixture) keyslots(m *sim.Machine) (last, newest kms.Secret) {
	f.t.Helper()
	for _, s := range f.secretsOf(m) {
		if s.Volume == m.Volumes[0].ID && s.Purpose == kms.PurposeKeyslot {
			last, newest = newest, s
		}
	}
	if last.Version == 0 {
		last = newest
	}
	return last, newest
}
