//go:build vm

package e2e_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/test/vm/vmtest"
)

const (
	name  = "web-17"
	motto = "this stood encrypted on the disk"
	// task runs in the system that was unlocked: it asks for the keys once more.
	task = "keywright-unlock boot; echo \"task: asking again ended with $?\"\n" +
		"keywright-unlock close && echo 'task: closing again is no error'\n"
)

// TestMachineUnlocksItself follows one machine: the power fails while it enrols,
// it enrols again, is approved, unlocks itself, carries out a rekey in that boot,
// gets nothing a second time in the same boot, nothing with another command line or
// another TPM, and nothing once it is revoked.
func TestMachineUnlocksItself(t *testing.T) {
	s := newSite(t, 5*time.Minute)
	ctx := t.Context()

	run := s.bootToEnrolment(ctx)
	vmtest.Expect(t, run, "step: add-keyslot")
	run.Kill()

	run = s.bootToEnrolment(ctx)
	vmtest.Expect(t, run, "system: enrolled")
	require.NoError(t, run.Wait(ctx))
	s.checkDisk()

	ek, err := s.machine.TPM.EK()
	require.NoError(t, err)
	assert.Contains(t, s.operate("machine", "approve", name, "--ek-hash", ek.MachineID()), "is active")

	s.order()
	run = s.boot(ctx, s.machine, "esp")
	s.rekeysAtBoot(run)
	vmtest.Expect(t, run, "spent")
	assert.NotContains(t, vmtest.Expect(t, run, "task: asking again ended with"), "ended with 0")
	vmtest.Expect(t, run, "task: closing again is no error")
	require.NoError(t, run.Wait(ctx))
	s.requireRekeyed(2)

	s.machine.Keep = false
	s.refused(s.machine, "esp-altered", "KW-1203 refused")
	explained := s.operate("explain", "machine/"+name)
	assert.Contains(t, explained, "kernel.cmdline")
	assert.Contains(t, explained, "init=/bin/sh")

	thief := s.machine
	thief.Name, thief.TPM = "thief", vmtest.NewTPM(t, "thief")
	s.refused(thief, "esp", "KW-1206 refused")

	assert.Contains(t, s.operate("revoke", "machine/"+name, "--reason", "stolen"), "is revoked")
	s.refused(s.machine, "esp", "KW-1208 refused")
}
