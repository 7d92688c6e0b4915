//go:build integration

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/unlock"
	"keywright.dev/unlock/luks"
)

// disk makes a blank one.
func (g *guest) disk(name string) string {
	g.t.Helper()
	path := g.path(name)
	require.NoError(g.t, os.WriteFile(path, nil, 0o600))
	require.NoError(g.t, os.Truncate(path, 32<<20))
	return path
}

func (g *guest) formatArgs(path string) []string {
	return []string{"format", path, "--config", g.config(), "--mapping", filepath.Base(path)}
}

// requireFormatted holds that the service alone has the keys of a volume: that of
// boots and, unless it was left out, the recovery key.
func (g *guest) requireFormatted(s *service, path string, purposes ...luks.Purpose) {
	g.t.Helper()
	v := header(g.t, path)
	assert.Empty(g.t, v.Header().Subsystem)
	tokens := v.OwnTokens()
	require.Len(g.t, tokens, len(purposes))
	require.Len(g.t, v.Inventory().Keyslots, len(purposes))
	assert.Len(g.t, v.Inventory().Tokens, len(purposes))
	for _, p := range purposes {
		require.Len(g.t, v.SlotsFor(tokens[0].Volume, p), 1, p)
	}
	if slices.Contains(purposes, luks.PurposeRecovery) {
		slot := v.SlotsFor(tokens[0].Volume, luks.PurposeRecovery)[0]
		require.NoError(g.t, typed(g.recoveryKey(s, path), path, "--key-slot", fmt.Sprint(slot)))
	} else {
		_, err := s.DiscloseRecoveryKey(g.t.Context(), operator(), g.volumeOf(s, path), 0)
		require.Error(g.t, err)
	}
	require.NoFileExists(g.t, g.path("adding"))
}

// withRecovery and withoutRecovery are the purposes of the keyslots of a volume.
func withRecovery() []luks.Purpose    { return []luks.Purpose{luks.PurposeBoot, luks.PurposeRecovery} }
func withoutRecovery() []luks.Purpose { return []luks.Purpose{luks.PurposeBoot} }

func TestBlankDiskBecomesAVolume(t *testing.T) {
	s := startService(t)
	g := withKeys(t, s)
	old := slices.Clone(g.volumes)
	before := g.headers()
	data := g.disk("data")
	out := g.does(g.formatArgs(data)...)
	assert.Contains(t, out, "open as /dev/mapper/data")
	assert.NotContains(t, out, "the only key of this volume")
	assert.Contains(t, out, "keywright volume recovery-key "+g.volumeOf(s, data).ID)
	assert.Contains(t, out, "/etc/crypttab  data UUID="+header(t, data).Header().UUID+" none luks,nofail\n")
	g.requireFormatted(s, data, withRecovery()...)
	assert.True(t, bytes.Equal(before, g.headers()))

	r := g.reboots(s, g.configured(append(old, data)...)...)
	require.NoError(t, r.err)
	assert.Len(t, r.events, 3)
	require.NoError(t, g.reboots(s, old...).err)
	assert.Contains(t, g.fails(unlock.ExitFailed, "", g.formatArgs(data)...), "is enrolled already: a boot opens it as data")
	g.requireFormatted(s, data, withRecovery()...)
}

func TestFormatCutAtEveryStepIsTakenUpAgain(t *testing.T) {
	s := startService(t)
	into := []unlock.Step{
		unlock.StepFormat, unlock.StepComplete, unlock.StepToken, unlock.StepKeyslot, unlock.StepAssign,
		unlock.StepRecoveryToken, unlock.StepRecoveryKeyslot, unlock.StepRecoveryAssign,
		unlock.StepKillFirst, unlock.StepCommit, unlock.StepFinish,
	}
	for _, c := range cutsOf(unlock.FormattingSteps(), into...) {
		t.Run(c.String(), func(t *testing.T) {
			g := withKeys(t, s)
			old := slices.Clone(g.volumes)
			data := g.disk("data")
			g.killIn(c, g.formatArgs(data)...)
			require.NoError(t, g.reboots(s, old...).err, "with the initramfs of before")
			known := old
			if len(g.volumesInConfig()) > len(old) {
				known = append(old, data)
			}
			require.NoError(t, g.reboots(s, g.configured(known...)...).err, "with what is configured by now")

			if _, err := os.Stat(g.path("adding")); err == nil || len(known) == len(old) {
				g.does(g.formatArgs(data)...)
			}
			g.requireFormatted(s, data, withRecovery()...)
			r := g.reboots(s, g.configured(append(old, data)...)...)
			require.NoError(t, r.err)
			assert.Len(t, r.events, 3)
		})
	}
}

func (g *guest) volumesInConfig() []unlock.VolumeConfig {
	g.t.Helper()
	c, err := unlock.LoadConfig(g.config())
	require.NoError(g.t, err)
	return c.Volumes
}

// A format whose secret the service does not give out again begins anew: nobody
// can have written anything behind it.
func TestFormatThatCannotBeFinishedBeginsAnew(t *testing.T) {
	s := startService(t)
	g := withKeys(t, s)
	data := g.disk("data")
	g.killIn(cut{unlock.StepCommit, 0, 0}, g.formatArgs(data)...)
	before := header(t, data)
	require.Len(t, before.OwnTokens(), 2)
	for _, token := range before.OwnTokens() {
		token.Resume = "00000000000000000000000000000000"
		require.NoError(t, luks.Cryptsetup{}.RemoveToken(t.Context(), data, token.ID))
		require.NoError(t, luks.Cryptsetup{}.ImportToken(t.Context(), data, token.ID, token.Token))
	}
	out := g.does(g.formatArgs(data)...)
	assert.Contains(t, out, "it begins anew")
	assert.NotEqual(t, before.Header().UUID, header(t, data).Header().UUID)
	g.requireFormatted(s, data, withRecovery()...)
}

// A format that was cut with recovery keys half done is finished without, and one
// that left them out is finished with them.
func TestInterruptedFormatChangesItsMindAboutRecovery(t *testing.T) {
	s := startService(t)
	without := "--no-recovery-key"
	for _, step := range []unlock.Step{
		unlock.StepRecoveryToken, unlock.StepRecoveryKeyslot, unlock.StepRecoveryTest, unlock.StepRecoveryAssign,
		unlock.StepKillFirst, unlock.StepCommit,
	} {
		t.Run("left out after "+string(step), func(t *testing.T) {
			g := withKeys(t, s)
			data := g.disk("data")
			g.killIn(cut{step, 0, 0}, g.formatArgs(data)...)
			out := g.does(append(g.formatArgs(data), without)...)
			assert.Contains(t, out, "the only key of this volume")
			g.requireFormatted(s, data, withoutRecovery()...)
			require.NoError(t, g.reboots(s, append(g.volumes, data)...).err)
		})
	}
	for _, step := range []unlock.Step{unlock.StepComplete, unlock.StepAssign, unlock.StepKillFirst, unlock.StepCommit} {
		t.Run("wanted after "+string(step), func(t *testing.T) {
			g := withKeys(t, s)
			data := g.disk("data")
			g.killIn(cut{step, 0, 0}, append(g.formatArgs(data), without)...)
			g.does(g.formatArgs(data)...)
			g.requireFormatted(s, data, withRecovery()...)
			require.NoError(t, g.reboots(s, append(g.volumes, data)...).err)
		})
	}
}

// Whatever a disk holds, it is not formatted.
func TestDiskThatIsNotBlankIsNotFormatted(t *testing.T) {
	s := startService(t)
	g := withKeys(t, s)
	ext4 := g.disk("ext4")
	program(t, "mkfs.ext4", "-q", ext4)
	gpt := g.disk("gpt")
	program(t, "sh", "-c", `echo "label: gpt" | sfdisk -q "$0"`, gpt)
	foreign := g.format("foreign")
	swap := g.disk("swap")
	program(t, "mkswap", swap)
	noise := g.disk("noise")
	f, err := os.OpenFile(noise, os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte{7}, 20000)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	folder := g.path("folder")
	require.NoError(t, os.Mkdir(folder, 0o700))
	tiny := g.path("tiny")
	require.NoError(t, os.WriteFile(tiny, make([]byte, 512), 0o600))
	for name, c := range map[string]struct{ path, want string }{
		"file system":         {ext4, "a signature of ext4"},
		"partition table":     {gpt, "a partition table of type gpt"},
		"LUKS":                {foreign, "a signature of crypto_LUKS"},
		"swap":                {swap, "a signature of swap"},
		"bytes without sense": {noise, "does not begin with zeros"},
		"volume of ours":      {g.volumes[0], "is enrolled already"},
		"folder":              {folder, "is no block device"},
		"terminal":            {"/dev/null", "is no block device"},
		"nothing":             {g.path("none"), "no such file or directory"},
		"too small":           {tiny, "reading the beginning"},
	} {
		t.Run(name, func(t *testing.T) {
			before, _ := os.ReadFile(c.path) // some cannot be read
			out := g.fails(unlock.ExitFailed, "", g.formatArgs(c.path)...)
			assert.Contains(t, out, c.want)
			assert.NotContains(t, out, "step: luks-format")
			after, _ := os.ReadFile(c.path)
			assert.True(t, bytes.Equal(before, after))
			assert.Len(t, g.volumesInConfig(), 2)
		})
	}
}

func program(t *testing.T, name string, args ...string) {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	require.NoError(t, err, "%s: %s", name, out)
}

func TestFormatWantsAMachineAndADisk(t *testing.T) {
	g := newGuest(t, 1)
	disk := g.disk("data")
	for name, c := range map[string]struct {
		code int
		args []string
		want string
	}{
		"no configuration": {unlock.ExitFailed, []string{"format", "--config", g.path("none"), disk}, "run keywright-unlock enroll first"},
		"not enrolled":     {unlock.ExitFailed, []string{"format", disk, "--config", g.config()}, "names no volume: run keywright-unlock enroll first"},
		"no disk":          {unlock.ExitUsage, []string{"format"}, "name the DEVICE"},
		"two disks":        {unlock.ExitUsage, []string{"format", disk, disk}, "one disk is formatted at a time"},
		"no flag":          {unlock.ExitUsage, []string{"format", disk, "--yes"}, "not defined"},
		"no name":          {unlock.ExitUsage, []string{"format", disk, "--mapping", "a b"}, "--mapping"},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Contains(t, g.fails(c.code, "", c.args...), c.want)
		})
	}
	s := startService(t)
	g.enroll(s)
	assert.Contains(t, g.fails(unlock.ExitRefused, "", g.formatArgs(disk)...), "KW-1207")
}
