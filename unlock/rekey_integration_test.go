//go:build integration

package unlock_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/unlock"
	"keywright.dev/unlock/luks"
)

func TestRekey(t *testing.T) {
	d := newDisk(t)
	before, err := os.ReadFile(d.path)
	require.NoError(t, err)
	r := d.rekey(io.Discard)
	var kept []byte
	r.Keep = func(_ context.Context, header io.Reader) error {
		kept, err = io.ReadAll(header)
		return err
	}
	added, err := r.Add(t.Context())
	require.NoError(t, err)
	backup := filepath.Join(t.TempDir(), "backup")
	require.True(t, d.opens(version(1).Key))
	require.True(t, d.opens(version(2).Key))
	assert.Equal(t, 31, added.Slot)
	assert.Len(t, added.Report.Slots, 4)
	assert.Len(t, added.Report.Tokens, 3)
	assert.Equal(t, rekeyVolume, added.Report.ID)
	assert.Equal(t, before[:32<<10], kept[:32<<10], "both copies of the metadata")
	assert.Equal(t, d.identity, identityOf(t, d.header()))

	done, err := r.Finish(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 31, done.Slot)
	assert.Len(t, done.Report.Slots, 3)
	d.requireSettled(2)
	again, err := r.Finish(t.Context())
	require.NoError(t, err)
	assert.Equal(t, done, again, "nothing is left to do")
	answered, err := r.Add(t.Context())
	require.NoError(t, err, "whoever did not hear of the commit begins anew")
	assert.Equal(t, done, answered)

	require.NoError(t, os.WriteFile(backup, kept, 0o600))
	d.cryptsetup("", "luksHeaderRestore", "-q", "--header-backup-file", backup, d.path)
	d.requireSettled(1)
}

func TestRekeyIsRolledBack(t *testing.T) {
	d := newDisk(t)
	d.adds()
	r := d.rekey(io.Discard)
	r.New = unlock.SecretVersion{}
	done, err := r.RollBack(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 1, done.Slot)
	d.requireSettled(1)
	d.requireSlots(3)
}

// One that the service committed and nobody finished is finished by the next.
func TestRekeyAfterOneThatWasNotFinished(t *testing.T) {
	d := newDisk(t)
	d.adds()
	r := d.rekey(io.Discard)
	r.Old, r.New = version(2), version(3)
	added, err := r.Add(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 30, added.Slot)
	require.False(t, d.opens(version(1).Key))
	require.True(t, d.opens(version(2).Key))
	_, err = r.Finish(t.Context())
	require.NoError(t, err)
	d.requireSettled(3)
	d.requireSlots(3)
}

// A copy of a header that changes meanwhile is of neither state: it is made anew.
func TestRekeyKeepsAWholeHeader(t *testing.T) {
	d := newDisk(t)
	r, times := d.rekey(io.Discard), 0
	var kept []byte
	r.Keep = func(_ context.Context, header io.Reader) (err error) {
		if times++; times == 1 {
			d.cryptsetup("", "config", "--label", "data", d.path)
		}
		kept, err = io.ReadAll(header)
		return err
	}
	_, err := r.Add(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 2, times)
	assert.Contains(t, string(kept[:4096]), "data")
	_, err = r.Add(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 2, times, "the header of before the first change was kept")
}

// A keyslot that no token is assigned to is not opened by a boot: that comes
// before the old one is killed.
func TestRekeyAssignsBeforeItKills(t *testing.T) {
	d := newDisk(t)
	d.announce(9, luks.PurposeBoot, 2)
	require.NoError(t, luks.Cryptsetup{}.AddKeyslot(t.Context(), d.path, text(person), version(2).Key, 9))
	require.False(t, d.opens(version(2).Key))
	d.killIn(rekeyChild, "finish", unlock.StepForgetOthers, 0)
	require.False(t, d.opens(version(1).Key))
	require.True(t, d.opens(version(2).Key))
}
