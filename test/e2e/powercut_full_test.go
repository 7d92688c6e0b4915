//go:build vm && full

package e2e_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/test/e2e"
	"keywright.dev/test/vm/vmtest"
	"keywright.dev/unlock"
)

// TestPowerCutAtEveryStep cuts the power of a machine that enrols, as the line of
// each step appears and once the last is done. However far it came: the machine
// boots with the passphrase, the next enrolment finishes, no keyslot is orphaned,
// and after the approval the machine unlocks itself.
func TestPowerCutAtEveryStep(t *testing.T) {
	s := newSite(t)
	for i, cut := range cuts() {
		t.Run(cut.line, func(t *testing.T) {
			on := *s
			on.t = t
			on.machine = s.newMachine(t, fmt.Sprintf("cut-%d", i), s.machine.Disk)
			on.cutAndEnrol(cut)
			on.unlocksItself()
		})
	}
}

// cut is a line at which the power fails.
type cut struct {
	line string
	// asked tells that the enrolment asks for the passphrase before.
	asked bool
}

func cuts() []cut {
	var list []cut
	asked := false
	for _, step := range unlock.Steps() {
		list = append(list, cut{fmt.Sprintf("step: %s", step), asked})
		asked = asked || step == unlock.StepPassphrase
	}
	return append(list, cut{"This machine waits for approval", asked})
}

// newMachine returns a machine with a TPM of its own and a copy of a disk.
func (s *site) newMachine(t *testing.T, name, disk string) e2e.Machine {
	t.Helper()
	dir := t.TempDir()
	m := e2e.Machine{Name: name, Dir: dir, TPM: vmtest.NewTPM(t, name), Disk: dir + "/disk", Keep: true}
	image, err := os.ReadFile(disk)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(m.Disk, image, 0o600))
	return m
}

func (s *site) cutAndEnrol(c cut) {
	s.t.Helper()
	ctx := s.t.Context()
	run := s.bootByPassphrase(ctx)
	if c.asked {
		require.NoError(s.t, run.Answer(ctx, e2e.EnrollPrompt, s.passphrase))
	}
	expect(s.t, run, c.line)
	run.Kill()
	run = s.bootToEnrolment(ctx)
	expect(s.t, run, "system: enrolled")
	require.NoError(s.t, run.Wait(ctx))
	s.checkDisk()
}

func (s *site) unlocksItself() {
	s.t.Helper()
	ek, err := s.machine.TPM.EK()
	require.NoError(s.t, err)
	s.operate("machine", "approve", ek.MachineID(), "--ek-hash", ek.MachineID(), "--name", s.machine.Name)
	run := s.boot(s.t.Context(), s.machine, "esp")
	expect(s.t, run, "keywright: opened")
	expect(s.t, run, "system: "+motto)
	run.Kill()
	assert.Contains(s.t, s.operate("machine", "show", s.machine.Name), "active")
}
