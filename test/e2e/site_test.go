//go:build vm

package e2e_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/secret"
	"keywright.dev/test/e2e"
	"keywright.dev/test/vm"
	"keywright.dev/test/vm/vmtest"
	"keywright.dev/unlock/luks"
)

// site is a service, a hypervisor and one machine.
type site struct {
	t          *testing.T
	dir        string
	service    *e2e.Service
	machine    e2e.Machine
	image      e2e.Image
	programs   e2e.Programs
	passphrase secret.Bytes
}

// newSite makes the machine of a site; its boot asks for keys until deadline. What
// is on its disk may be changed.
func newSite(t *testing.T, deadline time.Duration, changes ...func(*e2e.System)) *site {
	t.Helper()
	ctx, dir := t.Context(), t.TempDir()
	programs, err := e2e.Build(ctx, dir)
	require.NoError(t, err)
	s := &site{t: t, dir: dir, programs: programs, passphrase: secret.Copy([]byte("typed by the installer"))}
	s.service, err = e2e.ServiceConfig{Program: programs.Service, Dir: dir}.Start(ctx)
	require.NoError(t, err)
	t.Cleanup(s.service.Stop)
	s.machine = e2e.Machine{Name: name, Dir: dir, TPM: vmtest.NewTPM(t, name), Disk: s.path("disk"), Keep: true}
	system := e2e.System{
		Unlock: programs.Unlock, Server: s.service.URL, Key: s.service.Key, Name: name, Motto: motto, Task: task,
	}
	for _, change := range changes {
		change(&system)
	}
	volume, err := system.WriteDisk(ctx, s.machine.Disk, s.passphrase)
	require.NoError(t, err)
	s.image = e2e.Image{
		Unlock: programs.Unlock, Server: s.service.URL, Key: s.service.Key, Volume: volume, Deadline: deadline,
	}
	require.NoError(t, s.image.WriteInitrd(s.path("initrd")))
	s.writeESP("esp", "")
	s.writeESP("esp-altered", " init=/bin/sh")
	return s
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) writeESP(name, extra string) {
	s.t.Helper()
	require.NoError(s.t, e2e.WriteESP(s.t.Context(), s.path(name), s.path("initrd"), vm.DefaultCmdline+extra))
}

func (s *site) boot(ctx context.Context, machine e2e.Machine, esp string) *vm.Run {
	s.t.Helper()
	run, err := machine.Boot(ctx, s.path(esp), s.service.Port())
	require.NoError(s.t, err)
	s.t.Cleanup(run.Kill)
	return run
}

// bootByPassphrase types the passphrase into the initramfs of a machine that is
// not enrolled, or waits for its approval.
func (s *site) bootByPassphrase(ctx context.Context) *vm.Run {
	s.t.Helper()
	run := s.boot(ctx, s.machine, "esp")
	vmtest.Expect(s.t, run, "keywright KW-1403 not_enrolled", "keywright KW-1207 refused")
	require.NoError(s.t, run.Answer(ctx, e2e.DiskPrompt, s.passphrase))
	return run
}

// bootToEnrolment goes on to type the passphrase that the enrolment asks for.
func (s *site) bootToEnrolment(ctx context.Context) *vm.Run {
	s.t.Helper()
	run := s.bootByPassphrase(ctx)
	require.NoError(s.t, run.Answer(ctx, e2e.EnrollPrompt, s.passphrase))
	return run
}

func (s *site) operate(args ...string) string {
	s.t.Helper()
	output, err := s.service.Operate(s.t.Context(), args...)
	require.NoError(s.t, err)
	return output
}

// refused boots a machine that the service tells nothing but a code, again and
// again.
func (s *site) refused(machine e2e.Machine, esp, code string) {
	s.t.Helper()
	run := s.boot(s.t.Context(), machine, esp)
	for range 2 {
		assert.Contains(s.t, vmtest.Expect(s.t, run, "keywright KW-", "keywright: opened"), code)
	}
	run.Kill()
	assert.NotContains(s.t, run.Log(), "keywright: opened")
}

// checkDisk holds that the interrupted enrolment left nothing behind: the
// passphrase's keyslot, that for boots and that of the recovery key, and a token
// for each of ours.
func (s *site) checkDisk() {
	s.t.Helper()
	s.checkDiskOf(s.machine)
}

func (s *site) checkDiskOf(m e2e.Machine) {
	s.t.Helper()
	header, err := e2e.ReadHeader(m.Disk)
	require.NoError(s.t, err)
	tokens := header.OwnTokens()
	require.Len(s.t, tokens, 2)
	assert.Len(s.t, header.OwnSlots(tokens[0].Volume), 1)
	assert.Len(s.t, header.SlotsFor(tokens[0].Volume, luks.PurposeRecovery), 1)
	inventory := header.Inventory()
	assert.Len(s.t, inventory.Keyslots, 3)
	assert.Len(s.t, inventory.Tokens, 2)
	require.NoError(s.t, luks.Cryptsetup{}.TestKey(s.t.Context(), m.Disk, 0, s.passphrase), "the passphrase opens")
}
