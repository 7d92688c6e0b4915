//go:build integration

package main

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/unlock"
)

func (g *guest) leaveArgs() []string {
	args := []string{"leave", "--config", g.config(), "--passphrase-fd", "3"}
	for _, v := range g.volumes {
		args = append(args, "--device", v)
	}
	return args
}

func (g *guest) leaves() string {
	g.t.Helper()
	cmd := g.child(g.leaveArgs()...)
	give(g.t, cmd, passphrase)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(g.t, cmd.Run(), out.String())
	return out.String()
}

// requireLeft holds that volumes are as they were before the enrolment, but for
// the slots that are named.
func (g *guest) requireLeft(slots int) {
	g.t.Helper()
	for _, path := range g.volumes {
		v := header(g.t, path)
		require.Empty(g.t, v.OwnTokens())
		require.Len(g.t, v.Inventory().Keyslots, slots)
		cryptsetup(g.t, passphrase, "open", "--test-passphrase", "--key-slot", "0", "--key-file", "-", path)
	}
	_, err := os.Stat(g.path("unlock.toml"))
	require.ErrorIs(g.t, err, os.ErrNotExist)
}

func TestLeave(t *testing.T) {
	s, g := startService(t), newGuest(t, 2)
	g.enroll(s)
	for _, path := range g.volumes {
		g.addSlot(path, "somebody else's", 5)
	}
	before := g.headers()
	assert.Contains(t, g.fails(unlock.ExitFailed, "not the passphrase", g.leaveArgs()...), "the passphrase opens no keyslot")
	assert.True(t, bytes.Equal(before, g.headers()), "nothing was changed")
	key := g.recoveryKey(s, g.volumes[0])
	out := g.leaves()
	assert.Contains(t, out, "keywright revoke")
	assert.Contains(t, out, "note: killing keyslot 2 of "+g.volumes[1]+", whose recovery key opens nothing from now on")
	require.Error(t, typed(key, g.volumes[0]))
	g.requireLeft(2)
	g.leaves()
	g.requireLeft(2)
}

func TestLeavingCutAtEveryStepIsTakenUpAgain(t *testing.T) {
	s := startService(t)
	for _, step := range unlock.LeavingSteps() {
		for _, delay := range []time.Duration{0, 15 * time.Millisecond} {
			t.Run(cut{step, 0, delay}.String(), func(t *testing.T) {
				g := newGuest(t, 2)
				g.enroll(s)
				g.killIn(cut{step, 0, delay}, g.leaveArgs()...)
				g.leaves()
				g.requireLeft(1)
			})
		}
	}
}

func TestLeavingKeepsAForeignConfiguration(t *testing.T) {
	s, g := startService(t), newGuest(t, 1)
	g.enroll(s)
	require.NoError(t, os.WriteFile(g.path("unlock.toml"), []byte("# mine\n"), 0o644))
	before := g.headers()
	assert.Contains(t, g.fails(unlock.ExitFailed, passphrase, g.leaveArgs()...), "remove it first")
	assert.True(t, bytes.Equal(before, g.headers()))
}
