//go:build vm && full

package e2e_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"keywright.dev/test/e2e"
	"keywright.dev/test/vm/vmtest"
)

// TestDiskFromBeforeARekeyIsHeld puts back an image of a machine's disk from before a
// rekey. Its boot is refused until an operator announces the restore; then it is
// released the former secret, once, and is rekeyed at once.
func TestDiskFromBeforeARekeyIsHeld(t *testing.T) {
	s := newAttendedSite(t)
	image, snapshot := s.copyOf(s.machine, "image"), s.copyOf(s.machine, "snapshot")
	s.order("--at-boot")
	s.rekeysAndEnds(s.machine)
	s.requireRekeyed(2)
	rekeyed := s.machine

	s.machine.Disk = image.Disk
	run := s.refusedOnce(s.machine, "KW-1221")
	assert.Contains(t, s.explained(), "keywright machine expect-restore "+name)
	vmtest.Expect(t, run, "KW-1221 refused")
	run.Crash()
	s.operate("machine", "expect-restore", name, "--until", "1h", "--reason", "restored")
	s.rekeysAndEnds(s.machine)
	s.requireRekeyed(3)
	s.opensAndEnds(s.machine)
	assert.Equal(t, "none", s.alarms(), "somebody announced it")

	t.Log("its TPM goes back with it: one announcement does for both")
	s.machine.Disk, s.machine.TPM = snapshot.Disk, snapshot.TPM
	s.operate("machine", "expect-restore", name, "--until", "1h", "--reason", "restored")
	s.rekeysAndEnds(s.machine)
	s.requireRekeyed(4)

	t.Log("the disk from before the restores: nobody announced that")
	s.refusedOnce(rekeyed, "KW-1221").Crash()
}

// rekeysAndEnds boots a machine that is rekeyed in its boot, and shuts it down.
func (s *site) rekeysAndEnds(m e2e.Machine) {
	s.t.Helper()
	run := s.boot(s.t.Context(), m, "esp")
	s.rekeysAtBoot(run)
	s.off(run)
}
