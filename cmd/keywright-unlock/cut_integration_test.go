//go:build integration

package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/test/process"
	"keywright.dev/unlock"
)

// cut is a place to pull the plug: before a step begins its work on the n-th
// volume, or a moment into it.
type cut struct {
	step  unlock.Step
	nth   int
	delay time.Duration
}

func (c cut) String() string { return fmt.Sprintf("%s-%d-%v", c.step, c.nth, c.delay) }

// perVolume tells which steps are announced for each volume.
func perVolume(s unlock.Step) bool {
	switch s {
	case unlock.StepPassphrase, unlock.StepClean, unlock.StepToken, unlock.StepKeyslot, unlock.StepTest, unlock.StepAssign,
		unlock.StepRecoveryToken, unlock.StepRecoveryKeyslot, unlock.StepRecoveryTest, unlock.StepRecoveryAssign:
		return true
	default:
		return false
	}
}

func cuts() []cut {
	var list []cut
	for _, step := range unlock.Steps() {
		list = append(list, cut{step, 0, 0})
		if perVolume(step) {
			list = append(list, cut{step, 1, 0})
		}
	}
	for _, step := range []unlock.Step{
		unlock.StepComplete, unlock.StepToken, unlock.StepKeyslot, unlock.StepAssign,
		unlock.StepRecoveryToken, unlock.StepRecoveryKeyslot, unlock.StepRecoveryAssign, unlock.StepCommit,
	} {
		for _, ms := range []time.Duration{5, 15, 30} {
			list = append(list, cut{step, 0, ms * time.Millisecond})
		}
	}
	return list
}

func TestEnrolmentCutAtEveryStepIsTakenUpAgain(t *testing.T) {
	s := startService(t)
	for _, c := range cuts() {
		t.Run(c.String(), func(t *testing.T) {
			g := newGuest(t, 2)
			g.kill(s, c)
			for _, path := range g.volumes {
				cryptsetup(t, passphrase, "open", "--test-passphrase", "--key-slot", "0", "--key-file", "-", path)
			}
			g.enroll(s)
			g.requireEnrolled()
			s.approve(t, g.machine())
			g.requireRecovery(s)
			g.boot("ovmf-uki")
			require.NoError(t, g.bootHere(s).err)
		})
	}
}

// An enrolment that was interrupted with keyslots on the disk is not taken up with
// other volumes: the service would give new secrets, and orphan those keyslots.
func TestInterruptedEnrolmentKeepsItsVolumes(t *testing.T) {
	s := startService(t)
	for _, c := range []cut{{unlock.StepKeyslot, 1, 0}, {unlock.StepTest, 0, 0}, {unlock.StepAssign, 1, 0}, {unlock.StepRecoveryTest, 1, 0}, {unlock.StepConfig, 0, 0}} {
		t.Run(c.String(), func(t *testing.T) {
			g := newGuest(t, 2)
			g.kill(s, c)
			all, more := g.volumes, append(slices.Clone(g.volumes), g.format("one-more"))
			for _, volumes := range [][]string{all[:1], all[1:], more, {all[0], more[2]}} {
				g.volumes = volumes
				args := g.enrollArgs(s)
				g.volumes = more
				before := g.headers()
				out := g.fails(unlock.ExitFailed, passphrase, args...)
				assert.Contains(t, out, header(t, all[0]).Header().UUID)
				assert.Contains(t, out, header(t, all[1]).Header().UUID)
				assert.Contains(t, out, "each named with --device")
				assert.NotContains(t, out, "step: begin")
				assert.True(t, bytes.Equal(before, g.headers()))
			}
			g.volumes = all
			g.enroll(s)
			g.requireEnrolled()
		})
	}
}

// Before there is a keyslot, and after the service counts it, the volumes may
// be others.
func TestEnrolmentWithoutKeyslotsIsFreeToChange(t *testing.T) {
	s, g := startService(t), newGuest(t, 2)
	g.kill(s, cut{unlock.StepRecord, 0, 0})
	require.NoError(t, os.RemoveAll(g.path("enrolling")), "where the cut came too late")
	g.volumes = g.volumes[:1]
	g.enroll(s)
	g.requireEnrolled()
}

// kill starts an enrolment and kills it, with the programs that it runs, where
// the cut is.
func (g *guest) kill(s *service, c cut) {
	g.t.Helper()
	g.killIn(c, g.enrollArgs(s)...)
}

// killIn kills a command where the cut is.
func (g *guest) killIn(c cut, args ...string) {
	g.t.Helper()
	cmd := g.child(args...)
	give(g.t, cmd, passphrase)
	require.NoError(g.t, process.KillAtStep(cmd, string(c.step), c.nth, c.delay))
}
