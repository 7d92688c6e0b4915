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
	"keywright.dev/kms/claims"
	"keywright.dev/kms/exchange"
	"keywright.dev/test/sim"
)

// booted returns a machine that GRUB starts, which runs with its keys.
func (f *fixture) booted(name string) *sim.Machine {
	f.t.Helper()
	m := f.machine(name)
	m.Log = recordedBoot(f.t, "grub-a")
	m.Boot()
	m.NextBoot = filesOfBoot(f.t, m.Log)
	require.NoError(f.t, m.Enroll(f.t.Context(), f.guest()))
	f.approve(m)
	f.unlock(m)
	return m
}

// unlock restarts a machine, which gets its keys.
func (f *fixture) unlock(m *sim.Machine) {
	f.t.Helper()
	m.Boot()
	_, err := m.Unlock(f.t.Context(), f.guest())
	require.NoError(f.t, err)
}

// announce has a machine announce recorded boots, the first as its default.
func announce(t *testing.T, m *sim.Machine, boots ...string) {
	t.Helper()
	m.Stages = exchange.StageDetails{}
	for _, name := range boots {
		m.Stages.Boots = append(m.Stages.Boots, exchange.NextBoot{Files: filesOfBoot(t, recordedBoot(t, name))})
	}
}

func (f *fixture) stage(m *sim.Machine, boots ...string) api.StageResponse {
	f.t.Helper()
	announce(f.t, m, boots...)
	staged, err := m.Stage(f.t.Context(), f.guest())
	require.NoError(f.t, err)
	require.Len(f.t, staged.Boots, len(boots))
	return staged
}

func (f *fixture) nextBoot(ref string) kms.NextBoot {
	f.t.Helper()
	row, err := f.FindMachine(f.t.Context(), ref)
	require.NoError(f.t, err)
	boots, err := f.NextBoots(f.t.Context(), []kms.Machine{*row})
	require.NoError(f.t, err)
	return boots[0]
}

// A new initrd is the machine's alone: staged, it boots; the old one still does.
func TestStagedInitrdBoots(t *testing.T) {
	f := newFixture(t)
	m := f.booted("web-17")
	staged := f.stage(m, "grub-newinitrd", "grub-a")
	assert.Equal(t, f.clock.Now().Add(kms.StagedFor), *staged.Until)
	for _, boot := range staged.Boots {
		assert.Empty(t, boot.Code, boot.Detail)
	}
	assert.Equal(t, kms.VerdictYes, f.nextBoot("web-17").Verdict)
	entry := f.lastEntry(m.TPM.Machine())
	assert.Equal(t, kms.ActionStage, entry.Action)
	assert.Equal(t, audit.Allowed, entry.Outcome)
	assert.Equal(t, []string{"stage-from-approved-boot"}, entry.Policies)

	m.Log = recordedBoot(t, "grub-newinitrd")
	f.unlock(m)
	m.Log = recordedBoot(t, "grub-a")
	f.unlock(m)
}

// A new kernel is the group's: an operator approves it once, for every machine
// that staged it.
func TestStagedKernelWaitsForTheGroup(t *testing.T) {
	f := newFixture(t)
	machines := []*sim.Machine{f.booted("web-1"), f.booted("web-2")}
	var measurement string
	for _, m := range machines {
		staged := f.stage(m, "grub-oldkernel", "grub-a")
		assert.Equal(t, api.CodeMeasurement, staged.Boots[0].Code)
		assert.Empty(t, staged.Boots[1].Code, "the one that runs")
		measurement = staged.Boots[0].Measurement
		foretold := f.nextBoot(m.Name)
		assert.Equal(t, kms.VerdictNo, foretold.Verdict)
		assert.Equal(t, kms.ReasonMeasurement, foretold.Reason)
	}
	_, err := f.ApproveMeasurement(t.Context(), operator(), measurement, "")
	require.NoError(t, err)
	for _, m := range machines {
		assert.Equal(t, kms.VerdictYes, f.nextBoot(m.Name).Verdict)
		m.Log = recordedBoot(t, "grub-oldkernel")
		f.unlock(m)
	}
}

// What a machine staged is its own: the same files on another are refused.
func TestStagedForItselfOnly(t *testing.T) {
	f := newFixture(t)
	one, other := f.booted("web-1"), f.booted("web-2")
	f.stage(one, "grub-newinitrd")
	other.Log = recordedBoot(t, "grub-newinitrd")
	other.Boot()
	_, err := other.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonPlatform, err)
}

// What was staged and never booted expires; what was booted does not.
func TestStagedExpires(t *testing.T) {
	f := newFixture(t)
	m := f.booted("web-17")
	f.stage(m, "grub-newinitrd", "grub-a")
	f.clock.Advance(kms.StagedFor)
	assert.Equal(t, kms.ReasonPlatform, f.nextBoot("web-17").Reason)
	m.Log = recordedBoot(t, "grub-newinitrd")
	m.Boot()
	_, err := m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonPlatform, err)

	m.Log = recordedBoot(t, "grub-a")
	f.unlock(m)
	f.stage(m, "grub-newinitrd", "grub-a")
	m.Log = recordedBoot(t, "grub-newinitrd")
	f.unlock(m)
	f.clock.Advance(365 * 24 * time.Hour)
	f.unlock(m)
}

// What is staged takes the place of what was, but for what boots.
func TestStagedAnewReplaces(t *testing.T) {
	f := newFixture(t)
	m := f.booted("web-17")
	f.stage(m, "grub-newinitrd", "grub-oldkernel")
	f.stage(m, "grub-a")
	platforms, err := f.store.Platforms(t.Context(), m.TPM.Machine())
	require.NoError(t, err)
	assert.Len(t, platforms, 1, "what the enrolment approved")
	m.Log = recordedBoot(t, "grub-newinitrd")
	m.Boot()
	_, err = m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonPlatform, err)
	rows, err := f.store.Measurements(t.Context(), "", "", 100)
	require.NoError(t, err)
	for _, row := range rows {
		assert.Equal(t, kms.MeasurementApproved, row.Status, "what nobody announces any more waits no longer")
	}
}

// What a machine staged was its word in a life that is over once it enrols again:
// an operator lets it do so since its disk is another, or nobody trusts it any more.
func TestReenrolmentDropsWhatWasStaged(t *testing.T) {
	f := newFixture(t)
	m := f.booted("web-17")
	f.stage(m, "grub-newinitrd", "grub-a")
	f.readmit(m, kms.Readmission{Reenroll: true})
	forget(m)
	require.NoError(t, m.Enroll(t.Context(), f.guest()))
	f.approve(m)
	m.Log = recordedBoot(t, "grub-newinitrd")
	m.Boot()
	_, err := m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonPlatform, err)
	m.Log = recordedBoot(t, "grub-a")
	f.unlock(m)
}

// Where the first boot cannot be predicted, what is known of the one that was
// announced before it stays: an operator can still look at it and approve it.
func TestUnpredictableBootKeepsTheExpectedOne(t *testing.T) {
	f := newFixture(t)
	m := f.booted("web-17")
	f.stage(m, "grub-oldkernel", "grub-a")
	announce(t, m, "grub-a")
	m.Stages.Boots = append([]exchange.NextBoot{{Files: []byte("no claims")}}, m.Stages.Boots...)
	_, err := m.Stage(t.Context(), f.guest())
	require.NoError(t, err)
	f.approveAgain(m)
	m.Log = recordedBoot(t, "grub-oldkernel")
	f.unlock(m)
}

// Only asking stages nothing.
func TestStageCheckChangesNothing(t *testing.T) {
	f := newFixture(t)
	m := f.booted("web-17")
	announce(t, m, "grub-newinitrd", "grub-a")
	m.Stages.Check = true
	staged, err := m.Stage(t.Context(), f.guest())
	require.NoError(t, err)
	assert.Equal(t, api.CodePlatform, staged.Boots[0].Code, "it was not staged")
	assert.Empty(t, staged.Boots[1].Code)
	assert.Equal(t, kms.ActionRelease, f.lastEntry(m.TPM.Machine()).Action)
	m.Log = recordedBoot(t, "grub-newinitrd")
	m.Boot()
	_, err = m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonPlatform, err)
}

func TestStageRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		reason  kms.Reason
		prepare func(t *testing.T, f *fixture, m *sim.Machine)
	}{
		"a boot without a release": {kms.ReasonUnreleased, func(_ *testing.T, _ *fixture, m *sim.Machine) { m.Boot() }},
		"a boot by passphrase": {kms.ReasonUnreleased, func(_ *testing.T, _ *fixture, m *sim.Machine) {
			m.Boot()
			m.TPM.Extend(15, exchange.NoReleaseEvent())
		}},
		"the release of an earlier boot": {kms.ReasonUnreleased, func(t *testing.T, f *fixture, m *sim.Machine) {
			before := m.TPM.PCRs
			f.unlock(m)
			m.TPM.PCRs = before
		}},
		"a pending machine": {kms.ReasonPending, func(t *testing.T, f *fixture, m *sim.Machine) {
			fresh := f.machine("web-18")
			fresh.Log = recordedBoot(t, "grub-a")
			fresh.Boot()
			require.NoError(t, fresh.Enroll(t.Context(), f.guest()))
			fresh.Stages = m.Stages
			*m = *fresh
		}},
		"a revoked machine": {kms.ReasonRevoked, func(t *testing.T, f *fixture, m *sim.Machine) {
			_, _, err := f.RevokeMachine(t.Context(), operator(), m.TPM.Machine(), "stolen")
			require.NoError(t, err)
		}},
		"counters that went back": {kms.ReasonCounters, func(_ *testing.T, _ *fixture, m *sim.Machine) { m.TPM.Clock.ResetCount-- }},
		"another system that runs": {kms.ReasonUnreleased, func(t *testing.T, _ *fixture, m *sim.Machine) {
			m.Log = recordedBoot(t, "grub-newinitrd")
			m.Boot()
		}},
		"no boot": {kms.ReasonMalformed, func(_ *testing.T, _ *fixture, m *sim.Machine) { m.Stages.Boots = nil }},
		"too many boots": {kms.ReasonMalformed, func(_ *testing.T, _ *fixture, m *sim.Machine) {
			m.Stages.Boots = make([]exchange.NextBoot, exchange.MaxBoots+1)
		}},
		"a fault that is no text": {kms.ReasonMalformed, func(_ *testing.T, _ *fixture, m *sim.Machine) { m.Stages.Fault = "a\nb" }},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			m := f.booted("web-17")
			announce(t, m, "grub-newinitrd")
			c.prepare(t, f, m)
			_, err := m.Stage(t.Context(), f.guest())
			refused(t, c.reason, err)
			entry := f.lastEntry(m.TPM.Machine())
			assert.Equal(t, kms.ActionStage, entry.Action)
			assert.Equal(t, string(c.reason), entry.Code)
			platforms, err := f.store.Platforms(t.Context(), m.TPM.Machine())
			require.NoError(t, err)
			for _, p := range platforms {
				assert.True(t, p.Expires.IsZero(), "nothing was staged")
			}
		})
	}
}

// A running system that nobody approves any more stages nothing, though it had
// its keys.
func TestStageFromABootThatIsNoLongerApproved(t *testing.T) {
	f := newFixture(t)
	m := f.booted("web-17")
	row, err := f.FindMachine(t.Context(), "web-17")
	require.NoError(t, err)
	require.NoError(t, f.store.Transact(t.Context(), kms.Key{}, func(kms.State) (kms.Outcome, error) {
		return kms.Outcome{DropMeasurements: []kms.Measurement{{Digest: row.Measurement, Group: row.Group}}}, nil
	}))
	announce(t, m, "grub-newinitrd")
	_, err = m.Stage(t.Context(), f.guest())
	refused(t, kms.ReasonMeasurement, err)
	x, err := f.Explain(t.Context(), "web-17")
	require.NoError(t, err)
	assert.Contains(t, x.Advice, "keywright measurement approve "+hexOf(row.Measurement))
}

// What a machine says of itself stands in its next boot's verdict, and a boot that
// cannot be predicted keeps no other from being staged.
func TestStageFaults(t *testing.T) {
	f := newFixture(t)
	m := f.booted("web-17")
	announce(t, m, "grub-newinitrd")
	m.Stages.Fault = "data: no keyslot of its token is there"
	staged, err := m.Stage(t.Context(), f.guest())
	require.NoError(t, err)
	assert.Equal(t, api.CodeVolume, staged.Boots[0].Code)
	foretold := f.nextBoot("web-17")
	assert.Equal(t, kms.VerdictNo, foretold.Verdict)
	assert.Contains(t, foretold.Detail, "no keyslot of its token")

	announce(t, m, "grub-newinitrd")
	m.Stages.Boots = append([]exchange.NextBoot{{Files: []byte("no claims")}}, m.Stages.Boots...)
	staged, err = m.Stage(t.Context(), f.guest())
	require.NoError(t, err)
	assert.Equal(t, api.CodeMalformed, staged.Boots[0].Code)
	assert.Empty(t, staged.Boots[1].Code)
	assert.Equal(t, kms.VerdictNo, f.nextBoot("web-17").Verdict)

	f.stage(m, "grub-newinitrd")
	assert.Equal(t, kms.VerdictYes, f.nextBoot("web-17").Verdict)
	moved := m.Volumes[0].Identity
	m.Volumes[0].Identity[0]++
	staged = f.stage(m, "grub-newinitrd")
	assert.Equal(t, api.CodeVolume, staged.Boots[0].Code)
	assert.Equal(t, kms.ReasonVolume, f.nextBoot("web-17").Reason)
	m.Volumes[0].Identity = moved
}

// What shim measures beside itself no file tells. The machine's part is staged all
// the same, for when the group's is approved.
func TestStagedBootUnderAnotherShim(t *testing.T) {
	f := newFixture(t)
	m := f.booted("web-17")
	announce(t, m, "grub-newinitrd")
	files, err := claims.Parse(m.Stages.Boots[0].Files)
	require.NoError(t, err)
	list := slices.Collect(files.All())
	require.Equal(t, claims.BootApplication, list[0].Name)
	list[0].Value = strings.Repeat("5", 64)
	files, err = claims.New(claims.Files, list)
	require.NoError(t, err)
	m.Stages.Boots[0].Files = files.Marshal()
	staged, err := m.Stage(t.Context(), f.guest())
	require.NoError(t, err)
	assert.Equal(t, api.CodeMeasurement, staged.Boots[0].Code)
	assert.Contains(t, staged.Boots[0].Detail, "shim")
	assert.Equal(t, kms.VerdictNo, f.nextBoot("web-17").Verdict)

	m.Log = recordedBoot(t, "grub-newinitrd")
	f.unlock(m)
}

// Where the machine's files tell nothing of its next boot, this boot's measurement
// is judged in its place, and nobody says yes.
func TestStagedBootOfWhichNothingIsKnown(t *testing.T) {
	f := newFixture(t)
	m := f.booted("web-17")
	announce(t, m, "grub-newinitrd")
	m.Stages.Boots = append([]exchange.NextBoot{{Unknown: "the kernel has no name"}}, m.Stages.Boots...)
	staged, err := m.Stage(t.Context(), f.guest())
	require.NoError(t, err)
	assert.Empty(t, staged.Boots[0].Code)
	foretold := f.nextBoot("web-17")
	assert.Equal(t, kms.VerdictUnknown, foretold.Verdict)
	assert.Contains(t, foretold.Detail, "the kernel has no name")

	f.stage(m, "grub-newinitrd")
	assert.Equal(t, kms.VerdictYes, f.nextBoot("web-17").Verdict)
}

// Machines are found by their next boots, page by page.
func TestMachinesByNextBoot(t *testing.T) {
	f := newFixture(t)
	good, bad := f.booted("web-1"), f.booted("web-2")
	f.stage(good, "grub-a")
	f.stage(bad, "grub-oldkernel")
	fails := func(v kms.Verdict) bool { return v != kms.VerdictYes }
	list, boots, next, err := f.MachinesByNextBoot(t.Context(), kms.MachineFilter{}, fails, "", 10)
	require.NoError(t, err)
	require.Len(t, list, 1)
	assert.Equal(t, bad.TPM.Machine(), list[0].ID)
	assert.Equal(t, kms.ReasonMeasurement, boots[0].Reason)
	assert.Empty(t, next)

	all := func(kms.Verdict) bool { return true }
	first, _, next, err := f.MachinesByNextBoot(t.Context(), kms.MachineFilter{}, all, "", 1)
	require.NoError(t, err)
	require.Len(t, first, 1)
	second, _, next, err := f.MachinesByNextBoot(t.Context(), kms.MachineFilter{}, all, next, 1)
	require.NoError(t, err)
	require.Len(t, second, 1)
	assert.NotEqual(t, first[0].ID, second[0].ID)
	assert.Empty(t, next)
}

// A system that somebody opened by passphrase announces in vain; what is to be
// explained is still why its boot got no keys.
func TestExplainSeesPastAnnouncementsInVain(t *testing.T) {
	f := newFixture(t)
	m := f.booted("web-17")
	m.Log = recordedBoot(t, "grub-oldkernel")
	m.Boot()
	_, err := m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonMeasurement, err)
	m.TPM.Extend(15, exchange.NoReleaseEvent())
	announce(t, m, "grub-a")
	for range 2 {
		_, err = m.Stage(t.Context(), f.guest())
		refused(t, kms.ReasonUnreleased, err)
	}
	x, err := f.Explain(t.Context(), "web-17")
	require.NoError(t, err)
	assert.Equal(t, string(kms.ReasonMeasurement), x.Last.Code)
	assert.Contains(t, x.Advice, "keywright measurement approve")

	m.Log = recordedBoot(t, "grub-a")
	m.Boot()
	for range 40 {
		f.clock.Advance(24 * time.Hour)
		_, err = m.Stage(t.Context(), f.guest())
		refused(t, kms.ReasonUnreleased, err)
	}
	x, err = f.Explain(t.Context(), "web-17")
	require.NoError(t, err)
	assert.Equal(t, string(kms.ReasonUnreleased), x.Last.Code, "where nothing else is in reach")
}

// A page that has none of the machines that are looked for is not the last one.
func TestNextBootsBeyondOnePage(t *testing.T) {
	f := newFixture(t)
	want := make(map[string]bool)
	for _, name := range []string{"web-1", "web-2", "web-3"} {
		m := f.booted(name)
		boot := "grub-a"
		if name != "web-2" {
			boot = "grub-oldkernel"
			want[m.TPM.Machine()] = true
		}
		f.stage(m, boot)
	}
	got := make(map[string]bool)
	calls, after := 0, ""
	for done := false; !done; done = after == "" {
		list, _, next, err := f.ScanNextBoots(t.Context(), func(v kms.Verdict) bool { return v == kms.VerdictNo }, after, 10, 1)
		require.NoError(t, err)
		for _, m := range list {
			assert.False(t, got[m.ID], "listed once")
			got[m.ID] = true
		}
		calls, after = calls+1, next
	}
	assert.Equal(t, want, got)
	assert.Equal(t, 4, calls, "the last page is empty")
}
