//go:build integration

package main

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/unlock"
)

// overwrite destroys bytes of a volume.
func overwrite(t *testing.T, path string, offset, length int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteAt(make([]byte, length), offset)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

// damages are what can be wrong with one of several volumes.
func damages() map[string]struct {
	number string
	asked  bool // the keys were released, and this boot has none any more
	damage func(t *testing.T, g *guest, path string)
} {
	return map[string]struct {
		number string
		asked  bool
		damage func(t *testing.T, g *guest, path string)
	}{
		"its header is gone": {"KW-1402", false, func(t *testing.T, _ *guest, path string) { overwrite(t, path, 0, 32<<10) }},
		"its device is gone": {"KW-1402", false, func(t *testing.T, _ *guest, path string) { require.NoError(t, os.Remove(path)) }},
		"its token is gone": {"KW-1403", false, func(t *testing.T, _ *guest, path string) {
			cryptsetup(t, "", "token", "remove", "--token-id", "0", path)
		}},
		"it is another volume": {"KW-1403", false, func(t *testing.T, g *guest, path string) {
			require.NoError(t, os.Rename(g.format("another"), path))
		}},
		"its keyslot is damaged": {"KW-1406", true, func(t *testing.T, _ *guest, path string) {
			v := header(t, path)
			ours := v.OwnSlots(v.OwnTokens()[0].Volume)
			require.Len(t, ours, 1)
			for _, slot := range v.Inventory().Keyslots {
				if slot.ID == ours[0] {
					overwrite(t, path, int64(slot.AreaOffset), int64(slot.AreaSize))
				}
			}
		}},
	}
}

// What is wrong with one volume keeps all closed, however late it is found out.
func TestOneOfSeveralVolumesIsDamaged(t *testing.T) {
	for name, c := range damages() {
		t.Run(name, func(t *testing.T) {
			s := startService(t)
			g := enrolled(t, s)
			config := g.bootConfig([]string{s.url}, s.pin())
			c.damage(t, g, g.volumes[1])
			r := g.bootWith(config, new(recorder), "--deadline", "1ms")
			require.NotEqual(t, unlock.ExitDone, r.code)
			assert.Contains(t, r.lines, c.number)
			assert.Empty(t, r.events, "not even the first was opened")
			assert.Equal(t, c.asked, g.pcr15() != [32]byte{})
		})
	}
}

// One that may fail keeps no other closed.
func TestVolumeThatMayFailIsDamaged(t *testing.T) {
	for name, c := range damages() {
		t.Run(name, func(t *testing.T) {
			s := startService(t)
			g := enrolled(t, s)
			path := g.bootConfig([]string{s.url}, s.pin())
			config, err := unlock.LoadConfig(path)
			require.NoError(t, err)
			config.Volumes[1].Options = []string{"nofail"}
			require.NoError(t, config.Write(path))
			c.damage(t, g, g.volumes[1])
			r := g.bootWith(path, new(recorder))
			require.NoError(t, r.err)
			assert.Contains(t, r.lines, "going on without "+g.volumes[1])
			assert.Equal(t, []string{"open volume0"}, r.events)
			assert.Contains(t, r.lines, "opened "+g.volumes[0])
			assert.NotContains(t, r.lines, "opened "+g.volumes[1])
		})
	}
}

// A service from an older backup does not know the volume that was added since.
func TestServiceThatForgotAnAddedVolume(t *testing.T) {
	s := startService(t)
	g := withKeys(t, s)
	data := g.format("data")
	g.killIn(cut{unlock.StepCommit, 0, 0}, g.addArgs(data)...)
	g.volumes = append(g.volumes, data)
	path := g.bootConfig([]string{s.url}, s.pin())
	config, err := unlock.LoadConfig(path)
	require.NoError(t, err)
	g.boot("ovmf-uki")
	g.refusedWith(g.bootWith(path, new(recorder), "--deadline", "1ms"), "KW-1211")

	config.Volumes[2].Options = []string{"nofail"}
	require.NoError(t, config.Write(path))
	r := g.bootWith(path, new(recorder))
	require.NoError(t, r.err)
	assert.Equal(t, []string{"open volume0", "open volume1"}, r.events)
	assert.Contains(t, r.lines, "the service refuses a volume")
}

// Leaving takes an addition along, finished or not.
func TestLeavingWithAddedVolumes(t *testing.T) {
	s := startService(t)
	g := withKeys(t, s)
	first, second := g.format("first"), g.format("second")
	g.does(g.addArgs(first)...)
	g.killIn(cut{unlock.StepConfig, 0, 0}, g.addArgs(second)...)
	g.volumes = append(g.volumes, first, second)
	g.leaves()
	g.requireLeft(1)
	assert.NoFileExists(t, g.path("adding"))
}

// Of a formatted disk leaving would take the last key.
func TestLeavingKeepsTheLastKey(t *testing.T) {
	s := startService(t)
	g := withKeys(t, s)
	data := g.disk("data")
	g.does(g.formatArgs(data)...)
	g.volumes = append(g.volumes, data)
	before := g.headers()
	assert.Contains(t, g.fails(unlock.ExitFailed, passphrase, g.leaveArgs()...), "nothing opens it but the secret that the service keeps")
	after := g.headers()
	assert.Equal(t, before, after)
}
