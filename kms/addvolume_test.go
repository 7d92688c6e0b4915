package kms_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
	"keywright.dev/kms/audit"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/policy"
	"keywright.dev/test/sim"
)

// running returns an active machine whose boot had its keys.
func (f *fixture) running(name string) *sim.Machine {
	f.t.Helper()
	m := f.active(name)
	_, err := m.Unlock(f.t.Context(), f.guest())
	require.NoError(f.t, err)
	return m
}

// with returns the machine with the volumes that it added.
func with(m, adding *sim.Machine) *sim.Machine {
	all := *m
	all.Volumes = append(slices.Clone(m.Volumes), adding.Volumes...)
	return &all
}

func (f *fixture) volume(id string) kms.Volume {
	f.t.Helper()
	volumes, err := f.store.Volumes(f.t.Context(), "", "", 1000)
	require.NoError(f.t, err)
	i := slices.IndexFunc(volumes, func(v kms.Volume) bool { return v.ID == id })
	require.GreaterOrEqual(f.t, i, 0)
	return volumes[i]
}

func TestActiveMachineAddsAVolume(t *testing.T) {
	f := newFixture(t)
	m := f.running("web-17")
	first := m.Volumes[0].Key.Clone()
	adding := m.Adding(sim.NewVolume())
	require.NoError(t, adding.Complete(t.Context(), f.guest()))
	entry := f.lastEntry(m.TPM.Machine())
	assert.Equal(t, kms.ActionAddVolume, entry.Action)
	assert.Equal(t, []string{"add-volume-in-approved-boot"}, entry.Policies)

	m.Boot()
	_, err := with(m, adding).Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonVolume, err)
	_, err = m.Unlock(t.Context(), f.guest())
	require.NoError(t, err, "what was there before goes on")

	expected := f.row(m)
	answer, err := adding.Commit(t.Context(), f.guest())
	require.NoError(t, err)
	assert.Equal(t, "active", answer.Status)
	assert.Equal(t, kms.ActionCommitVolume, f.lastEntry(m.TPM.Machine()).Action)
	assert.Equal(t, expected.Expected, f.row(m).Expected, "what was announced stays")
	assert.Equal(t, expected.ExpectedPlatform, f.row(m).ExpectedPlatform)

	added := adding.Volumes[0].Key.Clone()
	all := with(m, adding)
	all.Boot()
	_, err = all.Unlock(t.Context(), f.guest())
	require.NoError(t, err)
	assert.True(t, first.Equal(all.Volumes[0].Key))
	assert.True(t, added.Equal(all.Volumes[2].Key))
}

// A lost answer is asked for again, and an addition is taken up again until a
// boot receives the volume.
func TestInterruptedAdditionResumes(t *testing.T) {
	f := newFixture(t)
	m := f.running("web-17")
	adding := m.Adding(sim.NewVolume())
	require.NoError(t, adding.Complete(t.Context(), f.guest()))
	first := adding.Volumes[0]

	require.NoError(t, adding.Complete(t.Context(), f.guest()), "the token is on the disk")
	assert.Equal(t, first.ID, adding.Volumes[0].ID)
	assert.True(t, first.Key.Equal(adding.Volumes[0].Key))

	forget(adding)
	require.NoError(t, adding.Complete(t.Context(), f.guest()), "no token was written")
	second := adding.Volumes[0]
	assert.NotEqual(t, first.ID, second.ID)
	assert.False(t, first.Key.Equal(second.Key))
	assert.Len(t, f.volumesOf(m), 3, "the first one is gone")

	for range 2 {
		_, err := adding.Commit(t.Context(), f.guest())
		require.NoError(t, err)
		require.NoError(t, adding.Complete(t.Context(), f.guest()), "cut after the commit")
		assert.True(t, second.Key.Equal(adding.Volumes[0].Key))
	}
	f.approveAgain(m)
	require.NoError(t, adding.Complete(t.Context(), f.guest()), "an approval of another boot ends no addition")

	all := with(m, adding)
	all.Boot()
	_, err := all.Unlock(t.Context(), f.guest())
	require.NoError(t, err)
	adding.Volumes[0] = second
	refused(t, kms.ReasonEnrolled, adding.Complete(t.Context(), f.guest()))
	_, err = adding.Commit(t.Context(), f.guest())
	refused(t, kms.ReasonEnrolled, err)
}

func (f *fixture) volumesOf(m *sim.Machine) []kms.Volume {
	f.t.Helper()
	volumes, err := f.store.Volumes(f.t.Context(), m.TPM.Machine(), "", 1000)
	require.NoError(f.t, err)
	return volumes
}

// approveAgain approves what an active machine announces.
func (f *fixture) approveAgain(m *sim.Machine) {
	f.t.Helper()
	row := f.row(m)
	_, err := f.ApproveMachine(f.t.Context(), operator(), row.ID, kms.Approval{Measurement: hexOf(row.Expected)})
	require.NoError(f.t, err)
}

func TestAdditionIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		reason kms.Reason
		change func(f *fixture, m, adding *sim.Machine)
	}{
		"machine unknown": {kms.ReasonMachine, func(f *fixture, _, adding *sim.Machine) {
			*adding = *f.machine("new").Adding(sim.NewVolume())
		}},
		"machine pending": {kms.ReasonPending, func(f *fixture, _, adding *sim.Machine) {
			pending := f.machine("pending")
			require.NoError(f.t, pending.Enroll(f.t.Context(), f.guest()))
			*adding = *pending.Adding(sim.NewVolume())
		}},
		"machine revoked": {kms.ReasonRevoked, func(f *fixture, m, _ *sim.Machine) {
			_, _, err := f.RevokeMachine(f.t.Context(), operator(), m.TPM.Machine(), "")
			require.NoError(f.t, err)
		}},
		"boot not approved": {kms.ReasonMeasurement, func(f *fixture, _, adding *sim.Machine) {
			adding.Log = recordedBoot(f.t, "ovmf-secureboot-uki")
			adding.Boot()
		}},
		"boot known, not approved": {kms.ReasonMeasurement, func(f *fixture, m, adding *sim.Machine) {
			adding.Log = recordedBoot(f.t, "ovmf-secureboot-uki")
			adding.Boot()
			seen := *m
			seen.Log = adding.Log
			_, err := seen.Unlock(f.t.Context(), f.guest())
			refused(f.t, kms.ReasonMeasurement, err)
		}},
		"platform not approved": {kms.ReasonPlatform, func(f *fixture, _, adding *sim.Machine) {
			var err error
			adding.Log, err = adding.Log.With(1, 0x80000002, []byte("another boot entry"))
			require.NoError(f.t, err)
			adding.Boot()
		}},
		"counters went back":  {kms.ReasonCounters, func(_ *fixture, m, _ *sim.Machine) { m.TPM.Clock.ResetCount-- }},
		"another service":     {kms.ReasonServiceKey, func(_ *fixture, _, adding *sim.Machine) { adding.ServiceKey[0] ^= 1 }},
		"no volume":           {kms.ReasonVolume, func(_ *fixture, _, adding *sim.Machine) { adding.Volumes = nil }},
		"no UUID":             {kms.ReasonVolume, func(_ *fixture, _, adding *sim.Machine) { adding.Volumes[0].UUID = "data" }},
		"volume of the boot":  {kms.ReasonEnrolled, func(_ *fixture, m, adding *sim.Machine) { adding.Volumes[0] = m.Volumes[0] }},
		"UUID of another one": {kms.ReasonEnrolled, func(_ *fixture, m, adding *sim.Machine) { adding.Volumes[0].UUID = m.Volumes[1].UUID }},
		"too many volumes": {kms.ReasonVolume, func(f *fixture, m, _ *sim.Machine) {
			for range exchange.MaxVolumes - 2 {
				f.write(kms.Outcome{Volumes: []kms.Volume{f.likeVolume(m)}})
			}
		}},
		"forbidden": {kms.ReasonPolicy, func(f *fixture, _, _ *sim.Machine) { f.forbidAdding() }},
		"no policy": {kms.ReasonPolicy, func(f *fixture, _, _ *sim.Machine) { f.policy = &policy.Engine{} }},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			m := f.running("web-17")
			adding := m.Adding(sim.NewVolume())
			c.change(f, m, adding)
			before := f.volumesOf(m)
			refused(t, c.reason, adding.Complete(t.Context(), f.guest()))
			assert.Equal(t, before, f.volumesOf(m))
			if c.reason != kms.ReasonMachine {
				entry := f.lastEntry(adding.TPM.Machine())
				assert.Equal(t, audit.Refused, entry.Outcome)
				assert.Equal(t, kms.ActionAddVolume, entry.Action)
				assert.Equal(t, string(c.reason), entry.Code)
				x, err := f.Explain(t.Context(), adding.TPM.Machine())
				require.NoError(t, err)
				assert.NotRegexp(t, "approve +--group|--platform *$", x.Advice, "it names what to approve")
			}
		})
	}
}

func (f *fixture) forbidAdding() {
	f.t.Helper()
	documents, err := policy.Shipped()
	require.NoError(f.t, err)
	f.policy, err = policy.New(append(documents, policy.Document{
		Name: "site.cedar", Text: []byte(`@id("no-new-disks") forbid (principal, action == Action::"volume.add", resource);`),
	})...)
	require.NoError(f.t, err)
}

// likeVolume returns a volume like the machine's first, under another name.
func (f *fixture) likeVolume(m *sim.Machine) kms.Volume {
	f.t.Helper()
	v := f.volume(m.Volumes[0].ID)
	v.UUID = sim.NewVolume().UUID
	v.ID = strings.ReplaceAll(v.UUID, "-", "")
	return v
}

// What may be added is asked anew at the commit, and what was forbidden or
// revoked meanwhile does not become active.
func TestCommitOfAnAdditionIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		reason kms.Reason
		change func(f *fixture, m, adding *sim.Machine)
	}{
		"machine revoked": {kms.ReasonRevoked, func(f *fixture, m, _ *sim.Machine) {
			_, _, err := f.RevokeMachine(f.t.Context(), operator(), m.TPM.Machine(), "")
			require.NoError(f.t, err)
		}},
		"boot not approved": {kms.ReasonMeasurement, func(f *fixture, _, adding *sim.Machine) {
			adding.Log = recordedBoot(f.t, "ovmf-secureboot-uki")
			adding.Boot()
		}},
		"counters went back": {kms.ReasonCounters, func(_ *fixture, m, _ *sim.Machine) { m.TPM.Clock.ResetCount-- }},
		"forbidden":          {kms.ReasonPolicy, func(f *fixture, _, _ *sim.Machine) { f.forbidAdding() }},
		"volume of the boot": {kms.ReasonEnrolled, func(_ *fixture, m, adding *sim.Machine) { adding.Volumes[0] = m.Volumes[0] }},
		"volume unknown":     {kms.ReasonVolume, func(_ *fixture, _, adding *sim.Machine) { adding.Volumes[0].ID = "0123" }},
		"another UUID":       {kms.ReasonVolume, func(_ *fixture, m, adding *sim.Machine) { adding.Volumes[0].UUID = m.Volumes[0].UUID }},
		"one volume twice":   {kms.ReasonVolume, func(_ *fixture, _, adding *sim.Machine) { adding.Volumes = append(adding.Volumes, adding.Volumes[0]) }},
		"a boot announced":   {kms.ReasonMalformed, func(f *fixture, _, adding *sim.Machine) { adding.NextBoot = filesOf(f.t, "next kernel") }},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			m := f.running("web-17")
			adding := m.Adding(sim.NewVolume())
			require.NoError(t, adding.Complete(t.Context(), f.guest()))
			before := f.volumesOf(m)
			c.change(f, m, adding)
			_, err := adding.Commit(t.Context(), f.guest())
			refused(t, c.reason, err)
			assert.Equal(t, before, f.volumesOf(m))
			assert.Equal(t, kms.ActionCommitVolume, f.lastEntry(m.TPM.Machine()).Action)
		})
	}
}

// Attack 2: an addition is not replayed.
func TestAttack02AdditionIsReplayed(t *testing.T) {
	f := newFixture(t)
	m := f.running("web-17")
	adding := m.Adding(sim.NewVolume())
	begun, err := f.guest().Begin(t.Context(), api.BeginRequest{Keys: m.Keys()})
	require.NoError(t, err)
	r, err := adding.Prepare(exchange.PurposeEnroll, begun.Challenge)
	require.NoError(t, err)
	request, err := r.CompleteRequest(begun)
	require.NoError(t, err)
	_, err = f.guest().Complete(t.Context(), request)
	require.NoError(t, err)
	before := f.volumesOf(m)
	_, err = f.guest().Complete(t.Context(), request)
	refused(t, kms.ReasonChallenge, err)

	fresh, err := f.guest().Begin(t.Context(), api.BeginRequest{Keys: m.Keys()})
	require.NoError(t, err)
	request.Challenge, request.Token = fresh.Challenge.Challenge, fresh.Challenge.Token
	_, err = f.guest().Complete(t.Context(), request)
	refused(t, kms.ReasonCredential, err)
	assert.Equal(t, before, f.volumesOf(m))
}

// An enrolment that does not say that it adds is still refused.
func TestActiveMachineDoesNotEnrolAgain(t *testing.T) {
	f := newFixture(t)
	m := f.running("web-17")
	again := m.Adding(sim.NewVolume())
	again.Add = false
	refused(t, kms.ReasonEnrolled, again.Complete(t.Context(), f.guest()))
}

func TestAdditionThatWasGivenUpMakesRoom(t *testing.T) {
	f := newFixture(t)
	m := f.running("web-17")
	given, kept := m.Adding(sim.NewVolume()), m.Adding(sim.NewVolume())
	require.NoError(t, given.Complete(t.Context(), f.guest()))
	require.NoError(t, kept.Complete(t.Context(), f.guest()))
	require.Len(t, f.volumesOf(m), 4)
	f.clock.Advance(24 * time.Hour)
	require.NoError(t, kept.Complete(t.Context(), f.guest()), "the one that is asked for is not given up")
	assert.Len(t, f.volumesOf(m), 3)
	_, err := given.Commit(t.Context(), f.guest())
	refused(t, kms.ReasonVolume, err)
	_, err = kept.Commit(t.Context(), f.guest())
	require.NoError(t, err)
}

// A boot that cannot be predicted is none to approve.
func TestUnpredictableBootIsNotAdvised(t *testing.T) {
	f := newFixture(t)
	m := f.machine("web-17")
	require.NoError(t, m.Complete(t.Context(), f.guest()))
	m.NextBoot = filesOfBoot(t, recordedBoot(t, "grub-a"))
	_, err := m.Commit(t.Context(), f.guest())
	refused(t, kms.ReasonMeasurement, err)
	x, err := f.Explain(t.Context(), m.TPM.Machine())
	require.NoError(t, err)
	assert.Empty(t, x.Advice)
}
