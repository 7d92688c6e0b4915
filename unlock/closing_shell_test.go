package unlock_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/exchange"
	"keywright.dev/unlock"
	"keywright.dev/unlock/luks"
)

// shell is a hand-over to a shell of a boot that opened two volumes with
// released keys; on the first stands a volume group.
func shell(t *testing.T) *handover {
	t.Helper()
	h := newHandover(t)
	h.Shell = true
	require.NoError(t, h.tpm.ExtendPCR15(exchange.ReleaseEvent([]byte("a release"))))
	h.opens(unlock.Opened{Root: true}, unlock.Opened{})
	h.bear(t, "254:0", "254:2", "vg-root")
	h.bear(t, "254:0", "254:3", "vg-origin")
	h.bear(t, "254:3", "254:4", "vg-snapshot")
	return h
}

// bear has a mapping stand on a device.
func (h *handover) bear(t *testing.T, below, number, name string) {
	t.Helper()
	folder := filepath.Join(string(h.Sysfs), "dev/block", below, "holders", name)
	require.NoError(t, os.MkdirAll(filepath.Join(folder, "dm"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "dev"), []byte(number+"\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "dm", "name"), []byte(name+"\n"), 0o600))
}

// TestAttack16ShellSeesNothingThatWasReleased has the root be spoiled, so that the
// initramfs, which was approved, ends at a shell.
func TestAttack16ShellSeesNothingThatWasReleased(t *testing.T) {
	h := shell(t)
	require.NoError(t, h.Run(t.Context()))
	assert.Equal(t, []string{"volume-1", "vg-snapshot", "vg-origin", "vg-root", "volume-0"}, h.unmapped)
	assert.Empty(t, h.opened)
	assert.Zero(t, h.reboots)

	require.NoError(t, h.Run(t.Context()), "it may be called again")
	assert.Len(t, h.unmapped, 5)
	h.Shell, h.Root = false, "/"
	require.NoError(t, h.Run(t.Context()), "what a passphrase opens then is handed over to")
}

func TestAttack16ShellThatWouldSeeWhatWasReleasedIsNone(t *testing.T) {
	for name, spoil := range map[string]func(*testing.T, *handover){
		"it is mounted": func(_ *testing.T, h *handover) { h.busy = "volume-0" },
		"what stands on it is mounted": func(_ *testing.T, h *handover) {
			h.busy = "vg-root"
		},
		"a RAID stands on it": func(t *testing.T, h *handover) {
			require.NoError(t, os.MkdirAll(filepath.Join(string(h.Sysfs), "dev/block/254:0/holders/md127"), 0o700))
		},
		"the record is gone": func(_ *testing.T, h *handover) { h.opened = nil },
		"the record is spoiled": func(_ *testing.T, h *handover) {
			h.Closing.Opened = func() ([]unlock.Opened, error) { return nil, errors.New("unreadable") }
		},
		"nothing can be kept": func(_ *testing.T, h *handover) {
			h.Closing.Keep = func([]unlock.Opened) error { return errors.New("full") }
		},
		"a table cannot be read": func(_ *testing.T, h *handover) {
			h.Closing.Table = func(string) (luks.Table, error) { return luks.Table{}, errors.New("unreadable") }
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := shell(t)
			spoil(t, h)
			failed(t, unlock.CodeOpen, h.Run(t.Context()))
			assert.Equal(t, 1, h.reboots)
		})
	}
}

// What a passphrase opened stays for whoever typed it.
func TestShellOfABootThatWasReleasedNothing(t *testing.T) {
	h := newHandover(t)
	h.Shell = true
	for range 2 {
		require.NoError(t, h.Run(t.Context()))
	}
	assert.Empty(t, h.unmapped)
}

// A mapping that a killed boot never made, or that is closed, is no reason to
// reset.
func TestShellWithoutMappings(t *testing.T) {
	h := shell(t)
	h.Closing.Table = func(string) (luks.Table, error) { return luks.Table{}, luks.ErrNoMapping }
	require.NoError(t, h.Run(t.Context()))
	assert.Empty(t, h.unmapped)
	assert.Empty(t, h.opened)
}

func (h *handover) unmap(_ context.Context, name string) error {
	if name == h.busy {
		return fmt.Errorf("closing mapping %s: %w", name, luks.ErrBusy)
	}
	h.unmapped = append(h.unmapped, name)
	return nil
}
