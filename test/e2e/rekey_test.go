//go:build vm

package e2e_test

import (
	"context"
	"time"

	"github.com/stretchr/testify/require"

	"keywright.dev/test/vm"
	"keywright.dev/test/vm/vmtest"
)

// rekeyPatience is how long a rekey may take on a busy host.
const rekeyPatience = 5 * time.Minute

// rekeysAtBoot waits until a boot, for which a rekey was ordered, has carried it out, and
// the system runs.
func (s *site) rekeysAtBoot(run *vm.Run) {
	s.t.Helper()
	vmtest.Expect(s.t, run, "keywright: opened")
	require.Contains(s.t, vmtest.Expect(s.t, run, "keywright: rekeyed", "keywright KW-", "system: "), "keywright: rekeyed")
	vmtest.Expect(s.t, run, "system: "+motto)
}

// requireRekeyed waits until a version of the secret of the machine's volume is the
// current one, and holds that its keyslot is the only one that boots open.
func (s *site) requireRekeyed(version uint32) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), rekeyPatience)
	defer cancel()
	require.NoError(s.t, s.service.AwaitRekey(ctx, s.machine.Name, version))
	s.checkDisk()
}

// order orders a rekey of the machine.
func (s *site) order(more ...string) {
	s.t.Helper()
	require.NoError(s.t, s.service.OrderRekey(s.t.Context(), s.machine.Name, more...))
}
