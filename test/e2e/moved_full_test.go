//go:build vm && full

package e2e_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/test/vm"
	"keywright.dev/test/vm/vmtest"
)

// TestMovedAndRestartedMachineUnlocksItself does to a machine whatever moves its
// TPM's counters honestly. It is saved and loaded on another host, to which its
// TPM comes within the saved state; it is reset, suspended and resumed; and its
// host loses its power, again and again. Its counters never go back, so that
// nobody has to be asked.
func TestMovedAndRestartedMachineUnlocksItself(t *testing.T) {
	s := newAttendedSite(t)
	s.machine.Reboots = true
	run := s.opens(s.machine)
	vmtest.Expect(t, run, "task: ready")
	s.readsAndWrites(run)

	run = s.migrate(run)
	s.readsAndWrites(run)
	s.counted(run, "the counters moved with the machine")

	require.NoError(t, run.Reset(t.Context()))
	s.opened(run)
	vmtest.Expect(t, run, "task: ready")
	s.do(run, "cat /etc/note", "written before")

	require.NoError(t, run.Send([]byte("echo mem >/sys/power/state\n")))
	require.NoError(t, run.Wake(t.Context()))
	vmtest.Expect(t, run, succeeded)
	s.readsAndWrites(run)
	s.counted(run, "a resume is counted")

	for _, moment := range []string{"BdsDxe: starting", "keywright: opened", "task: ready"} {
		run.Crash()
		run = s.boot(t.Context(), s.machine, "esp")
		vmtest.Expect(t, run, moment)
	}
	run.Crash()
	s.opensAndEnds(s.machine)
	assert.NotContains(t, s.operate("audit", "list", "--machine", name), "counters")
}

// migrate moves the machine to another host, which has its disk and of its TPM
// nothing.
func (s *site) migrate(run *vm.Run) *vm.Run {
	s.t.Helper()
	saved := s.path("saved")
	require.NoError(s.t, run.Save(s.t.Context(), saved))
	there, err := s.machine.TPM.Elsewhere(s.t.TempDir())
	require.NoError(s.t, err)
	s.machine.TPM = there
	run, err = s.machine.Load(s.t.Context(), saved, s.path("esp"), s.service.Port())
	require.NoError(s.t, err)
	s.t.Cleanup(run.Kill)
	return run
}

// readsAndWrites has the machine use its disk, and nothing that it remembers of
// that.
func (s *site) readsAndWrites(run *vm.Run) {
	s.t.Helper()
	s.do(run, "echo written before >/etc/note; sync; echo 3 >/proc/sys/vm/drop_caches; cat /etc/motto", motto)
	vmtest.Expect(s.t, run, succeeded)
}

// counted has the machine ask once more in the same boot: the service refuses
// that for what it is, and not for the counters, which come first.
func (s *site) counted(run *vm.Run, why string) {
	s.t.Helper()
	assert.Contains(s.t, s.do(run, "rogue", "rogue: "), "KW-1210 already_released", why)
}
