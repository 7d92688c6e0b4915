//go:build vm && full

package e2e_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/test/e2e"
	"keywright.dev/test/vm/vmtest"
	"keywright.dev/unlock"
)

// patience is how long a boot asks that waits for an approval, before it lets
// somebody type the passphrase.
const patience = 30 * time.Second

// TestPowerCutAtEveryStep cuts the power of a machine that enrols, as the line of
// each step appears and once the last is done. However far it came: the machine
// boots with the passphrase, the next enrolment finishes, no keyslot is orphaned,
// and after the approval the machine unlocks itself.
func TestPowerCutAtEveryStep(t *testing.T) {
	s := newSite(t, patience)
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
	vmtest.Expect(s.t, run, c.line)
	run.Kill()
	run = s.bootByPassphrase(ctx)
	// The last cut may come when the system has noted already that it is enrolled.
	if line := vmtest.Expect(s.t, run, "system: not enrolled", "system: "+motto); !strings.Contains(line, motto) {
		require.NoError(s.t, run.Answer(ctx, e2e.EnrollPrompt, s.passphrase))
		vmtest.Expect(s.t, run, "system: enrolled")
	}
	require.NoError(s.t, run.Wait(ctx))
	s.checkDisk()
}

func (s *site) unlocksItself() {
	s.t.Helper()
	ek, err := s.machine.TPM.EK()
	require.NoError(s.t, err)
	s.operate("machine", "approve", ek.MachineID(), "--ek-hash", ek.MachineID(), "--name", s.machine.Name)
	run := s.boot(s.t.Context(), s.machine, "esp")
	vmtest.Expect(s.t, run, "keywright: opened")
	vmtest.Expect(s.t, run, "system: "+motto)
	run.Kill()
	assert.Contains(s.t, s.operate("machine", "show", s.machine.Name), "active")
}
