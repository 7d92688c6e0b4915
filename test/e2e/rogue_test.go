//go:build vm

package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/secret"
	"keywright.dev/test/e2e"
	"keywright.dev/test/vm"
	"keywright.dev/test/vm/vmtest"
)

// TestAttack10PassphraseOpensNoWayToTheKeys has everything approved (the machine, its
// measurement, its platform) while a system that was opened by passphrase runs
// on it. Only PCR 15, which the initramfs extended before it handed over, keeps
// that system from the keys, whatever it asks with.
func TestAttack10PassphraseOpensNoWayToTheKeys(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	programs, err := e2e.Build(ctx, dir)
	require.NoError(t, err)
	service, err := e2e.ServiceConfig{Program: programs.Service, Dir: dir}.Start(ctx)
	require.NoError(t, err)
	t.Cleanup(service.Stop)
	passphrase := secret.New([]byte("known to a thief"))
	machine := e2e.Machine{Name: "opened", Dir: dir, TPM: vmtest.NewTPM(t, "opened"), Disk: filepath.Join(dir, "disk"), Keep: true}
	volume, err := e2e.System{
		Unlock: programs.Unlock, Server: service.URL, Key: service.Key, Name: "opened",
		Task:  "read -r approved </dev/ttyS0; rogue",
		Files: []vm.File{{Path: "/usr/bin/rogue", Mode: 0o755, Content: buildRogue(t)}},
	}.WriteDisk(ctx, machine.Disk, passphrase)
	require.NoError(t, err)
	image := e2e.Image{Unlock: programs.Unlock, Server: service.URL, Key: service.Key, Volume: volume, Deadline: time.Minute}
	initrd, esp := filepath.Join(dir, "initrd"), filepath.Join(dir, "esp")
	require.NoError(t, image.WriteInitrd(initrd))
	require.NoError(t, e2e.WriteESP(ctx, esp, initrd, vm.DefaultCmdline))

	run, err := machine.Boot(ctx, esp, service.Port())
	require.NoError(t, err)
	t.Cleanup(run.Kill)
	require.NoError(t, run.Answer(ctx, e2e.DiskPrompt, passphrase))
	require.NoError(t, run.Answer(ctx, e2e.EnrollPrompt, passphrase))
	vmtest.Expect(t, run, "system: enrolled")
	ek, err := machine.TPM.EK()
	require.NoError(t, err)
	_, err = service.Operate(ctx, "machine", "approve", "opened", "--ek-hash", ek.MachineID())
	require.NoError(t, err)
	require.NoError(t, run.Send([]byte("approved\n")))
	assert.Contains(t, vmtest.Expect(t, run, "rogue: "), "got nothing: KW-1210 already_released")
	explained, err := service.Operate(ctx, "explain", "machine/opened")
	require.NoError(t, err)
	assert.Contains(t, explained, "restart the machine: each boot gets its keys once")
}

func buildRogue(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rogue")
	build := exec.Command("go", "build", "-o", path, "keywright.dev/test/e2e/rogue")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	program, err := os.ReadFile(path)
	require.NoError(t, err)
	return program
}
