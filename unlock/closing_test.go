package unlock_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"keywright.dev/kms/exchange"
	"keywright.dev/unlock"
	"keywright.dev/unlock/luks"
)

// handover is a closing over a simulated TPM; its reboot is counted.
type handover struct {
	*unlock.Closing
	tpm     *simTPM
	clock   *fakeClock
	opened  []unlock.Opened
	table   luks.Table
	lines   []string
	reboots int
}

func newHandover(t *testing.T) *handover {
	t.Helper()
	h := &handover{tpm: newSimTPM(t, new(journal)), clock: &fakeClock{now: time.Unix(0, 0)}}
	h.Closing = &unlock.Closing{
		TPM:     func() (unlock.ReleasePCR, error) { return h.tpm, nil },
		EndBoot: func(context.Context, unlock.Clock) error { return nil },
		Opened:  func() ([]unlock.Opened, error) { return h.opened, nil },
		Table:   func(string) (luks.Table, error) { return h.table, nil },
		Clock:   h.clock, Announce: func(line string) { h.lines = append(h.lines, line) },
		Reboot: func() error { h.reboots++; return nil },
	}
	return h
}

// rootDevice returns the device that a directory is on, as a mapping's number.
func rootDevice(t *testing.T, path string) string {
	t.Helper()
	var stat unix.Stat_t
	require.NoError(t, unix.Stat(path, &stat))
	return fmt.Sprintf("%d:%d", unix.Major(stat.Dev), unix.Minor(stat.Dev))
}

// TestAttack16NothingRunsBeforePCR15IsExtended also when no keys came.
func TestAttack16NothingRunsBeforePCR15IsExtended(t *testing.T) {
	h := newHandover(t)
	require.NoError(t, h.Run(t.Context()))
	value, err := h.tpm.PCR15()
	require.NoError(t, err)
	assert.Equal(t, exchange.Extend([32]byte{}, exchange.NoReleaseEvent()), value)

	require.NoError(t, h.Run(t.Context()), "it may be called again")
	again, err := h.tpm.PCR15()
	require.NoError(t, err)
	assert.Equal(t, value, again)
	assert.Zero(t, h.reboots)
}

func TestClosingThatFailsResets(t *testing.T) {
	for name, spoil := range map[string]func(*handover){
		"no TPM":          func(h *handover) { h.Closing.TPM = func() (unlock.ReleasePCR, error) { return nil, os.ErrNotExist } },
		"does not extend": func(h *handover) { h.tpm.stuck = errors.New("stuck") },
		"a boot that does not end": func(h *handover) {
			h.Closing.EndBoot = func(context.Context, unlock.Clock) error { return errors.New("it still runs") }
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHandover(t)
			spoil(h)
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // being told to stop changes nothing
			require.Error(t, h.Run(ctx))
			assert.Equal(t, 1, h.reboots)
			assert.Contains(t, h.lines[0], "resetting the machine")
			assert.Equal(t, 10*time.Second, h.clock.now.Sub(time.Unix(0, 0)), "time to read why")
		})
	}
}

func TestRootIsOurMapping(t *testing.T) {
	h := newHandover(t)
	h.Root = t.TempDir()
	h.table = luks.Table{Name: "root", Number: rootDevice(t, h.Root), Cipher: "aes-xts-plain64", Flags: []string{}}
	h.opened = []unlock.Opened{{Root: true, Table: h.table}}
	h.opened[0].Table.Flags = nil
	require.NoError(t, h.Run(t.Context()))
	assert.Zero(t, h.reboots)
}

// TestAttack25AnotherRootIsNotHandedOver has a root appear that is not the
// mapping which this boot opened as root.
func TestAttack25AnotherRootIsNotHandedOver(t *testing.T) {
	for name, spoil := range map[string]func(*handover){
		"a plaintext disk":  func(h *handover) { h.opened[0].Table.Number = "999:1" },
		"a data volume":     func(h *handover) { h.opened[0].Root = false; h.opened = append(h.opened, unlock.Opened{Root: true}) },
		"the table changed": func(h *handover) { h.table.Offset = 4096 },
		"no such path":      func(h *handover) { h.Root = "/nonexistent" },
		"nothing to compare with": func(h *handover) {
			h.Closing.Opened = func() ([]unlock.Opened, error) { return nil, errors.New("unreadable") }
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHandover(t)
			h.Root = t.TempDir()
			h.table = luks.Table{Name: "root", Number: rootDevice(t, h.Root)}
			h.opened = []unlock.Opened{{Root: true, Table: h.table}}
			spoil(h)
			failed(t, unlock.CodeRoot, h.Run(t.Context()))
			assert.Equal(t, 1, h.reboots)
			value, err := h.tpm.PCR15()
			require.NoError(t, err)
			assert.NotZero(t, value)
		})
	}
}

func TestRootByPassphraseIsHandedOver(t *testing.T) {
	h := newHandover(t)
	h.Root = "/"
	require.NoError(t, h.Run(t.Context()))
}
