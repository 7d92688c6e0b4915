//go:build vm && full

package e2e_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/test/e2e"
	"keywright.dev/test/vm"
	"keywright.dev/test/vm/vmtest"
)

// attended is a task that does what is typed on the console.
const attended = `
enroll() {
	. /etc/installer
	mount -t vfat -o ro /dev/vda /boot/efi
	setsid -c drain keywright-unlock enroll --name "$1" --server "$server" --service-key "$service_key" \
		--uki /boot/efi/EFI/BOOT/BOOTX64.EFI </dev/ttyS0 >/dev/ttyS0 2>&1
}
echo "task: ready"
while read -r line && [ "$line" != off ]; do
	eval "$line"
	echo "task: it ended with $?"
done </dev/ttyS0
`

// newAttendedSite makes a site whose machine is enrolled and approved, was shut
// down, and does what is typed once it is unlocked. What is on its disk may be changed.
func newAttendedSite(t *testing.T, changes ...func(*e2e.System)) *site {
	t.Helper()
	attend := func(system *e2e.System) {
		system.Task = attended
		system.Files = []vm.File{{Path: "/usr/bin/rogue", Mode: 0o755, Content: buildRogue(t)}}
	}
	s := newSite(t, time.Minute, append([]func(*e2e.System){attend}, changes...)...)
	run := s.bootToEnrolment(t.Context())
	vmtest.Expect(t, run, "system: enrolled")
	s.off(run)
	s.approve(s.machine)
	return s
}

func (s *site) approve(m e2e.Machine) {
	s.t.Helper()
	ek, err := m.TPM.EK()
	require.NoError(s.t, err)
	s.operate("machine", "approve", ek.MachineID(), "--ek-hash", ek.MachineID(), "--name", m.Name)
}

// off shuts the machine down, once its task is ready.
func (s *site) off(run *vm.Run) {
	s.t.Helper()
	vmtest.Expect(s.t, run, "task: ready")
	s.turnOff(run)
}

func (s *site) turnOff(run *vm.Run) {
	s.t.Helper()
	require.NoError(s.t, run.Send([]byte("off\n")))
	require.NoError(s.t, run.Wait(s.t.Context()))
}

// do types a command and returns the first line that has the marker; the
// command's success is one.
func (s *site) do(run *vm.Run, command, marker string) string {
	s.t.Helper()
	require.NoError(s.t, run.Send([]byte(command+"\n")))
	return vmtest.Expect(s.t, run, marker)
}

const succeeded = "task: it ended with 0"

// opens boots a machine, which unlocks itself at its first try.
func (s *site) opens(m e2e.Machine) *vm.Run {
	s.t.Helper()
	run := s.boot(s.t.Context(), m, "esp")
	s.opened(run)
	return run
}

func (s *site) opened(run *vm.Run) {
	s.t.Helper()
	line := vmtest.Expect(s.t, run, "keywright KW-", "keywright: opened")
	require.Contains(s.t, line, "keywright: opened")
	vmtest.Expect(s.t, run, "system: "+motto)
}

// opensAndEnds boots a machine that unlocks itself, and shuts it down.
func (s *site) opensAndEnds(m e2e.Machine) {
	s.t.Helper()
	s.off(s.opens(m))
}

// refusedOnce boots a machine that is refused, and lets it go on asking.
func (s *site) refusedOnce(m e2e.Machine, code string) *vm.Run {
	s.t.Helper()
	run := s.boot(s.t.Context(), m, "esp")
	assert.Contains(s.t, vmtest.Expect(s.t, run, "keywright KW-", "keywright: opened"), code+" refused")
	return run
}

// copyOf copies a machine that is off, as a hypervisor does.
func (s *site) copyOf(m e2e.Machine, name string) e2e.Machine {
	s.t.Helper()
	copied, err := m.Copy(s.dir, name)
	require.NoError(s.t, err)
	return copied
}

// explained returns why the machine was refused, and what to do.
func (s *site) explained() string {
	s.t.Helper()
	return strings.ToLower(s.operate("explain", "machine/"+name))
}

// alarms returns what the service's status says of open alarms.
func (s *site) alarms() string {
	s.t.Helper()
	for line := range strings.Lines(s.operate("status")) {
		if alarms, ok := strings.CutPrefix(line, "open alarms"); ok {
			return strings.TrimSpace(alarms)
		}
	}
	s.t.Fatal("the status says nothing of alarms")
	return ""
}
