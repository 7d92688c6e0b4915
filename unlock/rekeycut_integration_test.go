//go:build integration

package unlock_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keywright.dev/test/process"
	"keywright.dev/unlock"
	"keywright.dev/unlock/luks"
)

// The roles of children of these tests; see [children].
const (
	rekeyChild     = "KEYWRIGHT_UNLOCK_REKEY"     // PART VOLUME RUN
	reencryptChild = "KEYWRIGHT_UNLOCK_REENCRYPT" // VOLUME RUN
)

// children are what a process of these tests may be instead.
func children() map[string]func(words []string) error {
	return map[string]func([]string) error{hardened: showHardened, rekeyChild: carryOutRekey, reencryptChild: carryOutReencryption}
}

// carryOutRekey carries out one part of a rekey.
func carryOutRekey(words []string) error {
	d, _, err := diskOf(words[1], words[2])
	if err != nil {
		return err
	}
	r, ctx := d.rekey(os.Stdout), context.Background()
	switch words[0] {
	case "add":
		_, err = r.Add(ctx)
	case "finish":
		_, err = r.Finish(ctx)
	case "roll-back":
		_, err = r.RollBack(ctx)
	default:
		err = fmt.Errorf("a rekey has no part %q", words[0])
	}
	return err
}

// diskOf returns a disk that another process made. Its file stays open.
func diskOf(path, run string) (*boundDisk, *luks.Volume, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	h, err := luks.ReadDevice(f)
	if err != nil {
		return nil, nil, err
	}
	v, err := h.Validate()
	if err != nil {
		return nil, nil, err
	}
	d := &boundDisk{path: path, run: unlock.RunDir(run)}
	d.identity, err = v.Identity().Digest()
	return d, v, err
}

// killIn kills a child a moment after it announced a step.
func (d *boundDisk) killIn(role, part string, step unlock.Step, delay time.Duration) {
	d.t.Helper()
	self, err := os.Executable()
	require.NoError(d.t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %s", role, part, d.path, d.run))
	require.NoError(d.t, process.KillAtStep(cmd, string(step), 0, delay))
}

// cutEach runs a test for each step of a part, cut before it begins, and at some
// moments of those that write.
func cutEach(t *testing.T, steps []unlock.Step, test func(t *testing.T, step unlock.Step, delay time.Duration)) {
	writing := []unlock.Step{unlock.StepToken, unlock.StepKeyslot, unlock.StepAssign, unlock.StepKillOthers, unlock.StepForgetOthers}
	for _, step := range steps {
		delays := []time.Duration{0}
		if slices.Contains(writing, step) {
			delays = []time.Duration{0, 5 * time.Millisecond, 15 * time.Millisecond, 30 * time.Millisecond, 60 * time.Millisecond}
		}
		for _, delay := range delays {
			t.Run(fmt.Sprintf("%s-%v", step, delay), func(t *testing.T) { test(t, step, delay) })
		}
	}
}

// Wherever adding is cut, the old version opens; it is finished, or rolled back.
func TestRekeyCutAtEveryStepOfAdding(t *testing.T) {
	add, _ := unlock.RekeySteps()
	cutEach(t, add, func(t *testing.T, step unlock.Step, delay time.Duration) {
		d := newDisk(t)
		d.killIn(rekeyChild, "add", step, delay)
		require.True(t, d.opens(version(1).Key))
		image, err := os.ReadFile(d.path)
		require.NoError(t, err)

		d.adds()
		require.True(t, d.opens(version(1).Key))
		require.True(t, d.opens(version(2).Key))
		_, err = d.rekey(io.Discard).Finish(t.Context())
		require.NoError(t, err)
		d.requireSettled(2)
		d.requireSlots(3)

		require.NoError(t, os.WriteFile(d.path, image, 0o600))
		_, err = d.rekey(io.Discard).RollBack(t.Context())
		require.NoError(t, err)
		d.requireSettled(1)
		d.requireSlots(3)
	})
}

func TestRekeyCutAtEveryStepOfFinishing(t *testing.T) {
	cutSettling(t, "finish", 2, (*unlock.Rekeying).Finish)
}

func TestRekeyCutAtEveryStepOfRollingBack(t *testing.T) {
	cutSettling(t, "roll-back", 1, (*unlock.Rekeying).RollBack)
}

// cutSettling cuts the part that leaves a version as the only one: that version
// opens all the while, and the next run ends it.
func cutSettling(t *testing.T, part string, stays uint32, again func(*unlock.Rekeying, context.Context) (unlock.Rekeyed, error)) {
	_, steps := unlock.RekeySteps()
	cutEach(t, steps, func(t *testing.T, step unlock.Step, delay time.Duration) {
		d := newDisk(t)
		d.adds()
		d.killIn(rekeyChild, part, step, delay)
		require.True(t, d.opens(version(stays).Key))
		_, err := again(d.rekey(io.Discard), t.Context())
		require.NoError(t, err)
		d.requireSettled(stays)
		d.requireSlots(3)
	})
}
