//go:build vm && full

package vm_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/test/vm"
	"keywright.dev/test/vm/vmtest"
)

// TestSavedMachineGoesOn saves a machine and loads it on another host, where no
// TPM's state is: it goes on where it was, with the PCRs and the disk that it
// had. There it is suspended and resumed, and reset.
func TestSavedMachineGoesOn(t *testing.T) {
	dir := t.TempDir()
	saved, initrd := filepath.Join(dir, "it's saved"), filepath.Join(dir, "initrd")
	disk := filepath.Join(dir, "disk")
	require.NoError(t, os.WriteFile(disk, make([]byte, 1<<20), 0o600))
	require.NoError(t, vm.Initramfs{
		Kernel: vmtest.Kernel(t),
		Script: "echo a note >/dev/vda; sync; echo it boots\n" +
			"while read -r line; do " + printPCRs + "head -c 7 /dev/vda; eval \"$line\"; done\n",
	}.Write(initrd))
	machine := vm.Machine{
		Name: "saved", Kernel: vmtest.Kernel(t).Image, Initrd: initrd, Reboots: true, Patience: time.Minute,
		TPM: vmtest.NewTPM(t, "saved"), Disks: []vm.Disk{{Path: disk}},
	}
	run := vmtest.Start(t, machine)
	vmtest.Expect(t, run, "it boots")
	require.NoError(t, run.Send([]byte("\n")))
	pcrs := readPCRs(t, run)
	require.Len(t, pcrs, 15)
	vmtest.Expect(t, run, "a note")
	require.NoError(t, run.Save(t.Context(), saved))

	there, err := machine.TPM.Elsewhere(t.TempDir())
	require.NoError(t, err)
	machine.TPM, machine.Incoming = there, saved
	run = vmtest.Start(t, machine)
	require.NoError(t, run.Send([]byte("echo mem >/sys/power/state; echo it resumed\n")))
	assert.Equal(t, pcrs, readPCRs(t, run))
	vmtest.Expect(t, run, "a note")
	require.NoError(t, run.Wake(t.Context()))
	vmtest.Expect(t, run, "it resumed")
	require.NoError(t, run.Reset(t.Context()))
	vmtest.Expect(t, run, "it boots")
	assert.NotContains(t, run.Log(), "guest: the script ended")
}

// TestLoadingWhatWasNeverSaved tells why there is no such machine.
func TestLoadingWhatWasNeverSaved(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	_, err := vm.Machine{Name: "lost", Kernel: vmtest.Kernel(t).Image, Initrd: "/dev/null", Incoming: missing}.Start(t.Context())
	require.ErrorContains(t, err, missing)
}
