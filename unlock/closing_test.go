package unlock_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

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
	device  string // number of the root's
	lines   []string
	reboots int
	// unmapped are the mappings that were closed; one that is busy cannot be.
	unmapped []string
	busy     string
}

func newHandover(t *testing.T) *handover {
	t.Helper()
	h := &handover{tpm: newSimTPM(t, new(journal)), clock: &fakeClock{now: time.Unix(0, 0)}, device: "254:0"}
	h.Closing = &unlock.Closing{
		TPM:     func() (unlock.ReleasePCR, error) { return h.tpm, nil },
		EndBoot: func(context.Context, unlock.Clock) error { return nil },
		Opened:  func() ([]unlock.Opened, error) { return h.opened, nil },
		Keep:    func(opened []unlock.Opened) error { h.opened = opened; return nil },
		Unmap:   h.unmap,
		Device:  func(string) (string, error) { return h.device, nil },
		Sysfs:   unlock.Sysfs(t.TempDir()),
		Table:   func(string) (luks.Table, error) { return h.table, nil },
		Clock:   h.clock, Announce: func(line string) { h.lines = append(h.lines, line) },
		Reboot: func() error { h.reboots++; return nil },
	}
	return h
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

// opens has a boot that opened volumes as mappings 254:0, 254:1 and so on.
func (h *handover) opens(volumes ...unlock.Opened) {
	tables := make(map[string]luks.Table)
	for i, o := range volumes {
		o.Table = luks.Table{Name: fmt.Sprintf("volume-%d", i), Number: fmt.Sprintf("254:%d", i), Cipher: "aes-xts-plain64"}
		h.opened = append(h.opened, o)
		tables[o.Table.Name] = o.Table
	}
	h.Closing.Table = func(name string) (luks.Table, error) { return tables[name], nil }
}

// stand has a device stand on others.
func (h *handover) stand(t *testing.T, number string, below ...string) {
	t.Helper()
	for i, other := range below {
		folder := filepath.Join(string(h.Sysfs), "dev/block", number, "slaves", fmt.Sprint(i))
		require.NoError(t, os.MkdirAll(folder, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(folder, "dev"), []byte(other+"\n"), 0o600))
	}
}

func TestRootIsOurMapping(t *testing.T) {
	for name, prepare := range map[string]func(*handover){
		"itself": func(h *handover) { h.opens(unlock.Opened{Root: true}) },
		"flags are none or empty": func(h *handover) {
			h.opens(unlock.Opened{Root: true})
			h.opened[0].Table.Flags = []string{}
		},
		"a logical volume on it": func(h *handover) {
			h.opens(unlock.Opened{Root: true}, unlock.Opened{})
			h.device = "254:7"
			h.stand(t, "254:7", "254:0")
		},
		"a RAID on all": func(h *handover) {
			h.opens(unlock.Opened{}, unlock.Opened{})
			h.device = "254:7"
			h.stand(t, "254:7", "9:127")
			h.stand(t, "9:127", "254:0", "254:1")
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHandover(t)
			h.Root = "/"
			prepare(h)
			require.NoError(t, h.Run(t.Context()))
			assert.Zero(t, h.reboots)
		})
	}
}

// TestAttack25AnotherRootIsNotHandedOver has a root appear that is not on the
// mapping which this boot opened as root.
func TestAttack25AnotherRootIsNotHandedOver(t *testing.T) {
	for name, spoil := range map[string]func(*handover){
		"a plaintext disk": func(h *handover) { h.device = "253:0" },
		"a data volume":    func(h *handover) { h.device = "254:1" },
		"a logical volume on a plaintext disk": func(h *handover) {
			h.device = "254:7"
			h.stand(t, "254:7", "253:0")
		},
		"a logical volume on a data volume": func(h *handover) {
			h.device = "254:7"
			h.stand(t, "254:7", "254:1")
		},
		"a mirror of which half is a plaintext disk": func(h *handover) {
			h.device = "9:127"
			h.stand(t, "9:127", "254:0", "253:0")
		},
		"the table changed":          func(h *handover) { h.opened[0].Table.Offset = 4096 },
		"a table below that changed": func(h *handover) { h.device = "254:7"; h.stand(t, "254:7", "254:0"); h.opened[0].Table.Offset = 4096 },
		"no such path": func(h *handover) {
			h.Device = func(string) (string, error) { return "", os.ErrNotExist }
		},
		"nothing to compare with": func(h *handover) {
			h.Closing.Opened = func() ([]unlock.Opened, error) { return nil, errors.New("unreadable") }
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHandover(t)
			h.Root = "/"
			h.opens(unlock.Opened{Root: true}, unlock.Opened{})
			spoil(h)
			failed(t, unlock.CodeRoot, h.Run(t.Context()))
			assert.Equal(t, 1, h.reboots)
			value, err := h.tpm.PCR15()
			require.NoError(t, err)
			assert.NotZero(t, value)
		})
	}
}

// TestAttack16ImageOfAnotherSystem has a thief bring the image of a suspended
// system, which would find keys in memory, or ask for them.
func TestAttack16ImageOfAnotherSystem(t *testing.T) {
	for name, c := range map[string]struct {
		device string
		ours   bool
	}{
		"a logical volume on the root's": {"254:7", true},
		"a swap volume":                  {"254:1", true},
		"a plaintext disk":               {"253:0", false},
		"a logical volume on one":        {"254:8", false},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHandover(t)
			h.Resume = "/dev/mapper/swap"
			h.opens(unlock.Opened{Root: true}, unlock.Opened{})
			h.device = c.device
			h.stand(t, "254:7", "254:0")
			h.stand(t, "254:8", "253:0")
			err := h.Run(t.Context())
			value, pcrErr := h.tpm.PCR15()
			require.NoError(t, pcrErr)
			assert.NotZero(t, value, "whatever runs next asks for nothing")
			assert.Zero(t, h.reboots)
			if c.ours {
				require.NoError(t, err)
				return
			}
			failed(t, unlock.CodeRoot, err)
			assert.Contains(t, h.lines[0], "the machine boots without")
		})
	}
}

// What a passphrase opens may resume as ever.
func TestResumeByPassphrase(t *testing.T) {
	h := newHandover(t)
	h.Resume = "/dev/mapper/swap"
	h.Device = func(string) (string, error) { return "", os.ErrNotExist }
	require.NoError(t, h.Run(t.Context()))
}

// A directory has the number of its device; what has none says what to name.
func TestDeviceNumber(t *testing.T) {
	_, err := unlock.DeviceNumber("/nonexistent")
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = unlock.DeviceNumber("/proc")
	require.ErrorContains(t, err, `file system proc on "proc", which is no device`)
}

func TestRootByPassphraseIsHandedOver(t *testing.T) {
	h := newHandover(t)
	h.Root = "/"
	require.NoError(t, h.Run(t.Context()))
}
