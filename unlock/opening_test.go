package unlock_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/secret"
	"keywright.dev/unlock"
	"keywright.dev/unlock/luks"
)

func TestAllOrNothing(t *testing.T) {
	r := newRig(t)
	r.opener.broken = "data"
	err := r.run(t)
	failed(t, unlock.CodeOpen, err)
	require.ErrorContains(t, err, "/dev/data")
	assert.Equal(t, []string{"open root with key of vol-a", "close root"}, r.events[3:])
	assert.Empty(t, r.recorded(t))
	assert.Contains(t, r.lines[0], "this boot cannot ask again")
	assert.Zero(t, r.reboots)
}

// A keyslot that does not open is found out before there is any mapping.
func TestEveryKeyIsUnsealedBeforeTheFirstMapping(t *testing.T) {
	r := newRig(t)
	r.opener.sealed = "data"
	failed(t, unlock.CodeOpen, r.run(t))
	assert.Empty(t, r.events[3:])
	assert.NotNil(t, r.recorded(t), "that nothing is open is on record")
}

// TestAttack25MappingIsRecordedBeforeItIsMade has the boot killed while it makes
// its second mapping: the hand-over must know of both.
func TestAttack25MappingIsRecordedBeforeItIsMade(t *testing.T) {
	r := newRig(t)
	var first, second []unlock.Opened
	r.opener.opening = func(name string) {
		if name == "root" {
			first = r.recorded(t)
			return
		}
		second = r.recorded(t)
	}
	require.NoError(t, r.run(t))
	require.Len(t, first, 1)
	assert.Equal(t, "root", first[0].Table.Name)
	assert.Empty(t, first[0].Table.Number)
	require.Len(t, second, 2)
	assert.Equal(t, "254:root", second[0].Table.Number)
	assert.Equal(t, "data", second[1].Table.Name)
	assert.Empty(t, second[1].Table.Number)

	h := newHandover(t)
	h.Root, h.opened = t.TempDir(), second
	failed(t, unlock.CodeRoot, h.Run(t.Context()))
	assert.Equal(t, 1, h.reboots)
}

// What a boot that was killed never made is not open.
func TestMappingThatWasNeverMade(t *testing.T) {
	h := newHandover(t)
	h.Root = t.TempDir()
	h.opened = []unlock.Opened{{Root: true, Table: luks.Table{Name: "root"}}}
	h.Closing.Table = func(string) (luks.Table, error) { return luks.Table{}, luks.ErrNoMapping }
	require.NoError(t, h.Run(t.Context()), "the root was opened by passphrase")
	h.Closing.Table = func(string) (luks.Table, error) { return luks.Table{}, errors.New("unreadable") }
	failed(t, unlock.CodeRoot, h.Run(t.Context()))
}

func TestMappingThatCannotBeClosedResets(t *testing.T) {
	r := newRig(t)
	r.opener.broken, r.opener.stuck = "data", "root"
	failed(t, unlock.CodeOpen, r.run(t))
	assert.Equal(t, 1, r.reboots)
	assert.Contains(t, r.lines[0], "resetting the machine")
	opened := r.recorded(t)
	require.Len(t, opened, 1)
	assert.Equal(t, "vol-a", opened[0].Volume)
}

// leaving fails and leaves its mapping behind.
type leaving struct{ *fakeOpener }

func (leaving) Open(context.Context, unlock.Volume, secret.Bytes) (*luks.Mapping, error) {
	return nil, luks.ErrLeftOpen
}

func TestMappingThatIsLeftOpenIsClosed(t *testing.T) {
	r := newRig(t)
	r.boot.Opener = leaving{r.opener}
	failed(t, unlock.CodeOpen, r.run(t))
	assert.Equal(t, []string{"close root"}, r.events[3:])
	assert.Empty(t, r.recorded(t))
}

// unkept cannot keep what is opened.
type unkept struct{ unlock.RunDir }

func (unkept) Opened([]unlock.Opened) error { return errors.New("no space left") }

func TestMappingThatCannotBeRecordedIsNotMade(t *testing.T) {
	r := newRig(t)
	r.boot.Keep = unkept{unlock.RunDir(r.dir)}
	failed(t, unlock.CodeOpen, r.run(t))
	assert.Empty(t, r.events[3:])
	assert.Zero(t, r.reboots)
}

// What can be known before is known before the one release is spent.
func TestVolumeThatIsNotReadyAsksNothing(t *testing.T) {
	r := newRig(t)
	r.opener.busy = luks.ErrBusy
	failed(t, unlock.CodeDevice, r.run(t))
	assert.Empty(t, r.events)
	assert.Greater(t, len(r.lines), 3, "it may become free")
}
