//go:build integration

package unlock_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/unlock"
	"keywright.dev/unlock/luks"
)

// What earlier runs, other programs and people left is understood.
func TestRekeyOfWhatItFinds(t *testing.T) {
	ours := func(d *boundDisk, slot int, key string) {
		require.NoError(t, luks.Cryptsetup{}.AddKeyslot(d.t.Context(), d.path, text(person), text(key), slot))
	}
	theirs := func(d *boundDisk, slot int) {
		d.cryptsetup(person+"\n"+"another's\nanother's\n", "luksAddKey", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "2000", "--new-key-slot", fmt.Sprint(slot), d.path)
	}
	for name, c := range map[string]struct {
		find  func(d *boundDisk)
		slots int // in the end
		says  string
	}{
		"nothing":                     {func(*boundDisk) {}, 3, ""},
		"token without a slot":        {func(d *boundDisk) { d.announce(9, "", 2) }, 3, ""},
		"two tokens without a slot":   {func(d *boundDisk) { d.announce(9, "", 2); d.announce(10, "", 2) }, 3, ""},
		"slot that was not assigned":  {func(d *boundDisk) { d.announce(9, "", 2); ours(d, 9, "secret of version 2") }, 3, ""},
		"slot that does not open":     {func(d *boundDisk) { d.announce(9, "", 2); ours(d, 9, "no secret") }, 3, ""},
		"assigned slot does not open": {func(d *boundDisk) { d.bind(9, "", 2, "no secret") }, 3, ""},
		"two slots of one version": {func(d *boundDisk) {
			d.bind(9, "", 2, "secret of version 2")
			d.bind(10, "", 2, "secret of version 2")
		}, 3, ""},
		"two tokens of one slot":         {func(d *boundDisk) { d.bind(9, "", 2, "secret of version 2"); d.announce(9, "", 2, 9) }, 3, ""},
		"two tokens of the old slot":     {func(d *boundDisk) { d.announce(1, "", 1, 1) }, 3, ""},
		"withdrawn version":              {func(d *boundDisk) { d.bind(9, "", 3, "secret of version 3") }, 3, ""},
		"withdrawn, not assigned":        {func(d *boundDisk) { d.announce(9, "", 3); ours(d, 9, "secret of version 3") }, 3, ""},
		"withdrawn, number taken":        {func(d *boundDisk) { d.announce(9, "", 3); theirs(d, 9) }, 4, "note: keyslot 9 of"},
		"announced number taken":         {func(d *boundDisk) { d.announce(9, "", 2); theirs(d, 9) }, 4, "note: keyslot 9 of"},
		"somebody's slot":                {func(d *boundDisk) { theirs(d, 31) }, 4, ""},
		"slot of ours without any token": {func(d *boundDisk) { ours(d, 9, "unknown") }, 4, ""},
		"old slot is ignored":            {func(d *boundDisk) { d.cryptsetup("", "config", "--priority", "ignore", "--key-slot", "1", d.path) }, 3, ""},
		"somebody else's token of a slot": {func(d *boundDisk) {
			d.cryptsetup(`{"type":"x","keyslots":["0"]}`, "token", "import", "--json-file", "-", d.path)
		}, 3, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDisk(t)
			c.find(d)
			image, err := os.ReadFile(d.path)
			require.NoError(t, err)
			foreign := strings.Contains(name, "taken") || strings.Contains(name, "somebody's slot")
			requireForeign := func() {
				if foreign {
					slot := map[bool]int{true: 31, false: 9}[name == "somebody's slot"]
					require.NoError(t, luks.Cryptsetup{}.TestKey(t.Context(), d.path, slot, text("another's")))
				}
			}
			priority := d.header().Inventory().Keyslots[1].Priority

			assert.Contains(t, d.adds(), c.says)
			done, err := d.rekey(io.Discard).Finish(t.Context())
			require.NoError(t, err)
			d.requireSettled(2)
			d.requireSlots(c.slots)
			requireForeign()
			for _, s := range done.Report.Slots {
				if s.ID == done.Slot {
					assert.Equal(t, priority, s.Priority)
				}
			}

			require.NoError(t, os.WriteFile(d.path, image, 0o600))
			var out bytes.Buffer
			_, err = d.rekey(&out).RollBack(t.Context())
			require.NoError(t, err)
			assert.Contains(t, out.String(), c.says)
			d.requireSettled(1)
			d.requireSlots(c.slots)
			requireForeign()
		})
	}
}

// What is refused is refused before anything is changed.
func TestRekeyThatIsRefused(t *testing.T) {
	both := []string{"add", "finish", "roll-back"}
	for name, c := range map[string]struct {
		find  func(d *boundDisk, r *unlock.Rekeying)
		parts []string
		want  string
	}{
		"wrong secrets":    {func(_ *boundDisk, r *unlock.Rekeying) { r.Old.Key, r.New.Key = text("x"), text("y") }, both, "opens no keyslot"},
		"no secrets":       {func(_ *boundDisk, r *unlock.Rekeying) { r.Old.Key, r.New.Key = text(""), text("") }, []string{"add", "roll-back"}, "a key of 0 bytes"},
		"another volume":   {func(_ *boundDisk, r *unlock.Rekeying) { r.Volume = "vol-b" }, both, "no token says"},
		"another identity": {func(_ *boundDisk, r *unlock.Rekeying) { r.Identity[0] ^= 1 }, both, "is not the volume that was enrolled"},
		"no device":        {func(d *boundDisk, r *unlock.Rekeying) { r.Device += "x" }, both, "no such file"},
		"versions swapped": {func(_ *boundDisk, r *unlock.Rekeying) { r.Old.Number = 2; r.New.Number = 1 }, []string{"add"}, "does not follow"},
		"later rekey": {func(d *boundDisk, _ *unlock.Rekeying) {
			d.bind(9, "", 2, "secret of version 2")
			d.announce(10, "", 3)
		}, []string{"finish"}, "a later rekey"},
		"not added": {func(*boundDisk, *unlock.Rekeying) {}, []string{"finish"}, "version 2 of the secret of volume/vol-a opens no keyslot"},
		"slot of two": {func(d *boundDisk, _ *unlock.Rekeying) {
			d.bind(9, "", 2, "secret of version 2")
			d.cryptsetup(`{"type":"x","keyslots":["1"]}`, "token", "import", "--json-file", "-", d.path)
		}, []string{"finish"}, "names keyslot 1, as our token"},
		"recovery key's slot": {func(d *boundDisk, _ *unlock.Rekeying) { d.announce(2, "", 3, 2) }, []string{"add", "roll-back"}, "names keyslot 2, as our token"},
		"no copy": {func(_ *boundDisk, r *unlock.Rekeying) {
			r.Keep = func(context.Context, io.Reader) error { return errors.New("no space left") }
		}, []string{"add"}, "no space left"},
		"32 keyslots": {func(d *boundDisk, _ *unlock.Rekeying) {
			for slot := 3; slot < 32; slot++ {
				require.NoError(d.t, luks.Cryptsetup{}.AddKeyslot(d.t.Context(), d.path, text(person), text("x"), slot))
			}
		}, []string{"add"}, "all are taken"},
		"no room": {func(d *boundDisk, r *unlock.Rekeying) {
			small := newDisk(d.t, "--luks2-keyslots-size", "774144")
			d.path, r.Device, r.Identity = small.path, small.path, small.identity
		}, []string{"add"}, "no room for another keyslot"},
		"unreadable token": {func(d *boundDisk, _ *unlock.Rekeying) {
			d.cryptsetup(`{"type":"keywright","keyslots":[]}`, "token", "import", "--json-file", "-", d.path)
		}, both, "has our type but another form"},
	} {
		for _, part := range c.parts {
			t.Run(name+" "+part, func(t *testing.T) {
				d := newDisk(t)
				r := d.rekey(io.Discard)
				c.find(d, r)
				before, err := os.ReadFile(d.path)
				require.NoError(t, err)
				parts := map[string]func(context.Context) (unlock.Rekeyed, error){"add": r.Add, "finish": r.Finish, "roll-back": r.RollBack}
				_, err = parts[part](t.Context())
				require.ErrorContains(t, err, c.want)
				assert.NotContains(t, err.Error(), "secret of version")
				after, err := os.ReadFile(d.path)
				require.NoError(t, err)
				assert.True(t, bytes.Equal(before, after), "nothing was changed")
			})
		}
	}
}

// meddling returns a cryptsetup before whose luksAddKey another program takes the
// number of the keyslot, as many times as there are numbers.
func (d *boundDisk) meddling(slots ...int) luks.Cryptsetup {
	d.t.Helper()
	dir := d.t.TempDir()
	var queue strings.Builder
	for _, slot := range slots {
		fmt.Fprintln(&queue, slot)
	}
	require.NoError(d.t, os.WriteFile(filepath.Join(dir, "queue"), []byte(queue.String()), 0o600))
	require.NoError(d.t, os.WriteFile(filepath.Join(dir, "person"), []byte(person), 0o600))
	require.NoError(d.t, os.WriteFile(filepath.Join(dir, "another's"), []byte("another's"), 0o600))
	script := `#!/bin/sh
dir=$(dirname "$0")
slot=$(head -n 1 "$dir/queue")
if [ "$1" = luksAddKey ] && [ -n "$slot" ]; then
	sed -i 1d "$dir/queue"
	cryptsetup luksAddKey -q --pbkdf pbkdf2 --pbkdf-force-iterations 2000 --key-file "$dir/person" --new-key-slot "$slot" ` + d.path + ` "$dir/another's" </dev/null
fi
exec cryptsetup "$@"
`
	path := filepath.Join(dir, "cryptsetup")
	require.NoError(d.t, os.WriteFile(path, []byte(script), 0o700))
	return luks.Cryptsetup{Path: path}
}

// Another program that changes the header at the same time costs a second try,
// and nothing of anybody.
func TestRekeyBesideAnotherProgram(t *testing.T) {
	d := newDisk(t)
	var out bytes.Buffer
	r := d.rekey(&out)
	r.Cryptsetup = d.meddling(31)
	added, err := r.Add(t.Context())
	require.NoError(t, err)
	assert.Contains(t, out.String(), "beginning again")
	assert.Equal(t, 30, added.Slot)
	r.Cryptsetup = d.meddling(29)
	_, err = r.Finish(t.Context())
	require.NoError(t, err)
	d.requireSettled(2)
	d.requireSlots(4)
	require.NoError(t, luks.Cryptsetup{}.TestKey(t.Context(), d.path, 31, text("another's")))

	d = newDisk(t)
	r = d.rekey(io.Discard)
	r.Cryptsetup = d.meddling(31, 30)
	_, err = r.Add(t.Context())
	require.ErrorIs(t, err, unlock.ErrHeaderBusy)
	require.True(t, d.opens(version(1).Key))
	d.adds()
	_, err = d.rekey(io.Discard).Finish(t.Context())
	require.NoError(t, err)
	d.requireSettled(2)
	d.requireSlots(5)
}
