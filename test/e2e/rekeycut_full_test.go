//go:build vm && full

package e2e_test

import (
	"encoding/binary"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keywright.dev/test/vm"
	"keywright.dev/test/vm/vmtest"
	"keywright.dev/unlock"
)

const (
	// sequenceAt is where a LUKS2 header has the number that each write moves.
	sequenceAt = 16
	writePoll  = time.Millisecond
	// rekeyed is what an agent says at the end.
	rekeyed = "is rekeyed: version"
)

// TestPowerCutAtEveryStepOfARekey cuts the power of a machine that is being rekeyed:
// as the line of each step of its agent appears, and again at each write to the LUKS
// header, as soon as the first of its two copies is new. Each time the machine boots
// unattended, that boot finishes the rekey, and nothing is left over.
func TestPowerCutAtEveryStepOfARekey(t *testing.T) {
	c := &rekeyCuts{site: newAttendedSite(t), version: 1}
	c.run = c.opens(c.machine)
	vmtest.Expect(t, c.run, "task: ready")
	steps := unlock.RekeyOrderSteps()
	for i := range steps {
		c.atStep(steps[:i+1])
	}
	write := uint64(1)
	for c.atWrite(write) {
		write++
	}
	require.Greater(t, write, uint64(4), "token, keyslot, and both of the version before")
	c.inABoot()
	c.turnOff(c.run)
	require.Equal(t, "none", c.alarms())
}

// rekeyCuts is a machine that runs, and is rekeyed again and again.
type rekeyCuts struct {
	*site
	run     *vm.Run
	version uint32 // of the secret that was ordered last
}

// begin orders a rekey, which the agent begins.
func (c *rekeyCuts) begin() {
	c.t.Helper()
	c.version++
	c.order()
	require.NoError(c.t, c.run.Send([]byte("keywright-unlock agent & agent=$!\n")))
}

// atStep cuts when the last of the steps begins.
func (c *rekeyCuts) atStep(steps []unlock.Step) {
	c.t.Helper()
	c.begin()
	for _, step := range steps {
		vmtest.Expect(c.t, c.run, "step: "+string(step))
	}
	c.cut("at step %d, %s", len(steps), steps[len(steps)-1])
}

// atWrite cuts when the header is written for the nth time, counted from 1. It is
// false where a rekey writes it fewer times.
func (c *rekeyCuts) atWrite(nth uint64) bool {
	c.t.Helper()
	before := c.sequence()
	c.begin()
	for c.sequence() < before+nth {
		if strings.Contains(c.run.Log(), rekeyed) {
			c.endAgent()
			return false
		}
		time.Sleep(writePoll)
	}
	c.cut("at write %d", nth)
	return true
}

// inABoot cuts a boot that carries out a rekey.
func (c *rekeyCuts) inABoot() {
	c.t.Helper()
	c.version++
	c.order("--at-boot")
	c.turnOff(c.run)
	before := c.sequence()
	c.run = c.boot(c.t.Context(), c.machine, "esp")
	for c.sequence() == before {
		require.NotContains(c.t, c.run.Log(), "system: ", "the boot rekeys nothing")
		time.Sleep(writePoll)
	}
	c.cut("in a boot")
}

// cut cuts the power, and boots again.
func (c *rekeyCuts) cut(format string, args ...any) {
	c.t.Helper()
	c.run.Crash()
	c.t.Logf("version %d: cut "+format, append([]any{c.version}, args...)...)
	c.run = c.opens(c.machine)
	vmtest.Expect(c.t, c.run, "task: ready")
	if !strings.Contains(c.run.Log(), "keywright KW-1400 guest: left for later: ") {
		c.requireRekeyed(c.version)
		return
	}
	c.t.Log("the boot gave up after a while, as on a busy host: the agent goes on")
	require.NoError(c.t, c.run.Send([]byte("keywright-unlock agent & agent=$!\n")))
	vmtest.Expect(c.t, c.run, rekeyed)
	c.endAgent()
}

func (c *rekeyCuts) endAgent() {
	c.t.Helper()
	c.requireRekeyed(c.version)
	c.do(c.run, "kill $agent; wait $agent", succeeded)
}

// sequence reads the number of the header's first copy, as it is on the disk.
func (c *rekeyCuts) sequence() uint64 {
	c.t.Helper()
	disk, err := os.Open(c.machine.Disk)
	require.NoError(c.t, err)
	defer disk.Close()
	var number [8]byte
	_, err = disk.ReadAt(number[:], sequenceAt)
	require.NoError(c.t, err)
	return binary.BigEndian.Uint64(number[:])
}
