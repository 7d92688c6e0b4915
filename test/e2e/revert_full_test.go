//go:build vm && full

package e2e_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/test/e2e"
	"keywright.dev/test/vm/vmtest"
)

// TestAttack15RevertedMachine takes a snapshot of a machine and reverts to it:
// to its disk alone, which nobody notices, and to its TPM as well, whose counters
// then went back. That is refused until an operator says that it was meant.
func TestAttack15RevertedMachine(t *testing.T) {
	s := newAttendedSite(t)
	snapshot := s.copyOf(s.machine, "snapshot")
	run := s.opens(s.machine)
	s.do(run, "echo newer >/etc/newer; sync", succeeded)
	s.turnOff(run)

	diskAlone := s.copyOf(snapshot, "disk-alone")
	diskAlone.TPM = s.machine.TPM
	run = s.opens(diskAlone)
	s.do(run, "[ ! -e /etc/newer ]", succeeded)
	s.turnOff(run)

	t.Log("reverted with its TPM: refused, until it is readmitted")
	reverted := s.copyOf(snapshot, "reverted")
	run = s.refusedOnce(reverted, "KW-1209")
	assert.Contains(t, s.explained(), "keywright machine readmit "+name)
	assert.Equal(t, "1 counters", s.alarms())
	s.operate("machine", "readmit", name, "--reason", "reverted")
	vmtest.Expect(t, run, "keywright: opened")
	vmtest.Expect(t, run, "system: "+motto)
	s.off(run)
	s.opensAndEnds(reverted)
	assert.Equal(t, "none", s.alarms(), "what was readmitted is no alarm any more")

	t.Log("reverted as announced: opened, once")
	s.operate("machine", "expect-restore", name, "--until", "1h")
	announced := s.copyOf(snapshot, "announced")
	s.opensAndEnds(announced)
	s.opensAndEnds(announced)
	again := s.refusedOnce(s.copyOf(snapshot, "again"), "KW-1209")
	require.NoError(t, again.Answer(t.Context(), e2e.DiskPrompt, s.passphrase), "the passphrase goes on to open")
	vmtest.Expect(t, again, "system: "+motto)
	s.off(again)
	s.opensAndEnds(announced)
}

// TestAttack15ClonedMachine clones a machine with its TPM, and without. Of two
// that have the same TPM the one whose counters are behind is refused, whichever
// it is. A clone with a TPM of its own is unknown; it enrols as another machine,
// and the original loses nothing by it.
func TestAttack15ClonedMachine(t *testing.T) {
	s := newAttendedSite(t)
	clone := s.copyOf(s.machine, "clone")
	s.opensAndEnds(s.machine)
	s.opensAndEnds(s.machine)
	s.refusedOnce(clone, "KW-1209").Kill()

	t.Log("the host's owner turns the clone's counters forward: then the original is behind")
	turned := vmtest.PowerOn(t, clone.TPM)
	for range 3 {
		require.NoError(t, turned.Reset())
	}
	require.NoError(t, turned.Close())
	s.opensAndEnds(clone)
	s.refusedOnce(s.machine, "KW-1209").Kill()
	assert.Contains(t, s.explained(), "a copy of its tpm is running")

	t.Log("a clone with a TPM of its own enrols")
	other := s.copyOf(s.machine, "other")
	other.TPM = vmtest.NewTPM(t, other.Name)
	run := s.refusedOnce(other, "KW-1206")
	require.NoError(t, run.Answer(t.Context(), e2e.DiskPrompt, s.passphrase))
	vmtest.Expect(t, run, "task: ready")
	require.NoError(t, run.Send([]byte("enroll other\n")))
	require.NoError(t, run.Answer(t.Context(), e2e.EnrollPrompt, s.passphrase))
	vmtest.Expect(t, run, "note: killing keyslot 1 of /dev/vdb, left by an earlier enrolment")
	vmtest.Expect(t, run, succeeded)
	s.turnOff(run)
	s.checkDiskOf(other)
	s.approve(other)
	s.opensAndEnds(other)
	for _, either := range []string{name, other.Name} {
		assert.Contains(t, s.operate("machine", "show", either), "is a copied disk")
	}

	s.checkDiskOf(s.machine)
	s.operate("machine", "readmit", name)
	s.opensAndEnds(s.machine)
}
