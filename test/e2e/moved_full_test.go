//go:build vm && full

package e2e_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/test/e2e"
	"keywright.dev/test/vm"
	"keywright.dev/test/vm/vmtest"
)

// TestMovedAndRestartedMachineUnlocksItself does to a machine whatever moves its
// TPM's counters honestly. It is saved and loaded on another host, to which its
// TPM comes within the saved state; it is reset, suspended and resumed; and its
// host loses its power, again and again. Its counters never go back, so that
// nobody has to be asked. At last it is put back to what was saved: it goes on
// from there, and may not ask.
func TestMovedAndRestartedMachineUnlocksItself(t *testing.T) {
	s := newAttendedSite(t)
	s.machine.Reboots = true
	run := s.opens(s.machine)
	vmtest.Expect(t, run, "task: ready")
	s.readsAndWrites(run)
	require.NoError(t, run.Save(t.Context(), s.path("saved")))
	snapshot := s.copyOf(s.machine, "snapshot")

	s.machine, run = s.load(s.machine)
	s.readsAndWrites(run)
	s.asksAgain(run, "KW-1210 already_released")

	require.NoError(t, run.Reset(t.Context()))
	s.opened(run)
	vmtest.Expect(t, run, "task: ready")
	s.do(run, "cat /etc/note", "written before")
	vmtest.Expect(t, run, succeeded)

	require.NoError(t, run.Send([]byte("echo mem >/sys/power/state\n")))
	require.NoError(t, run.Wake(t.Context()))
	vmtest.Expect(t, run, succeeded)
	s.readsAndWrites(run)
	s.asksAgain(run, "KW-1210 already_released")

	for _, moment := range []string{"BdsDxe: starting", "keywright: opened", "task: ready"} {
		run.Crash()
		run = s.boot(t.Context(), s.machine, "esp")
		vmtest.Expect(t, run, moment)
	}
	run.Crash()
	s.opensAndEnds(s.machine)
	assert.Equal(t, "none", s.alarms())

	_, run = s.load(snapshot)
	s.readsAndWrites(run)
	s.asksAgain(run, "KW-1209 counters")
	require.NoError(t, run.Reset(t.Context()))
	assert.Contains(t, vmtest.Expect(t, run, "keywright KW-", "keywright: opened"), "KW-1209 refused")
}

// load has the machine go on where it was saved, on a host that has its disk and
// of its TPM nothing.
func (s *site) load(m e2e.Machine) (e2e.Machine, *vm.Run) {
	s.t.Helper()
	there, err := m.TPM.Elsewhere(s.t.TempDir())
	require.NoError(s.t, err)
	m.TPM = there
	run, err := m.Load(s.t.Context(), s.path("saved"), s.path("esp"), s.service.Port())
	require.NoError(s.t, err)
	s.t.Cleanup(run.Kill)
	return m, run
}

// readsAndWrites has the machine use its disk, and nothing that it remembers of
// that.
func (s *site) readsAndWrites(run *vm.Run) {
	s.t.Helper()
	s.do(run, "echo written before >/etc/note; sync; echo 3 >/proc/sys/vm/drop_caches; cat /etc/motto", motto)
	vmtest.Expect(s.t, run, succeeded)
}

// asksAgain has the machine ask in a boot that had its keys. It is refused for
// that where its counters are not the reason, which come first.
func (s *site) asksAgain(run *vm.Run, why string) {
	s.t.Helper()
	assert.Contains(s.t, s.do(run, "rogue", "rogue: "), why)
}
