//go:build integration

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/unlock"
)

// withKeys returns a machine that is enrolled and active, and whose boot had its
// keys.
func withKeys(t *testing.T, s *service) *guest {
	t.Helper()
	g := enrolled(t, s)
	require.NoError(t, g.bootHere(s).err)
	return g
}

func (g *guest) addArgs(path string) []string {
	return []string{"enroll", "--config", g.config(), "--device", path, "--mapping", filepath.Base(path), "--passphrase-fd", "3"}
}

// does runs a command that has the passphrase, and returns what it printed.
func (g *guest) does(args ...string) string {
	g.t.Helper()
	cmd := g.child(args...)
	give(g.t, cmd, passphrase)
	out, err := cmd.CombinedOutput()
	require.NoError(g.t, err, string(out))
	return string(out)
}

// configured returns the paths of the volumes that the configuration names.
func (g *guest) configured(all ...string) []string {
	g.t.Helper()
	c, err := unlock.LoadConfig(g.config())
	require.NoError(g.t, err)
	var paths []string
	for _, v := range c.Volumes {
		for _, path := range all {
			if v.Device == "UUID="+header(g.t, path).Header().UUID {
				paths = append(paths, path)
			}
		}
	}
	require.Len(g.t, paths, len(c.Volumes))
	return paths
}

// reboots restarts the machine and has it open volumes.
func (g *guest) reboots(s *service, volumes ...string) *result {
	g.t.Helper()
	before := g.volumes
	g.volumes = volumes
	defer func() { g.volumes = before }()
	g.boot("ovmf-uki")
	return g.bootHere(s)
}

// added tells whether an addition came to its end: all volumes are configured,
// and nothing is on record.
func (g *guest) added(all ...string) bool {
	g.t.Helper()
	_, err := os.Stat(g.path("adding"))
	return err != nil && len(g.configured(all...)) == len(all)
}

func TestHotAddedDiskIsOpenedByTheNextBoot(t *testing.T) {
	s, old := startService(t), []string(nil)
	g := withKeys(t, s)
	old = slices.Clone(g.volumes)
	before := g.headers()
	data := g.format("data")
	out := g.does(g.addArgs(data)...)
	assert.Contains(t, out, "/etc/crypttab  data UUID="+header(t, data).Header().UUID+" none luks,nofail\n")
	assert.Contains(t, out, "/etc/fstab     /dev/mapper/data /srv/data ")
	assert.NotContains(t, out, "note:")
	assert.True(t, bytes.Equal(before, g.headers()), "the other volumes are not touched")

	c, err := unlock.LoadConfig(g.config())
	require.NoError(t, err)
	require.Len(t, c.Volumes, 3)
	assert.Equal(t, unlock.VolumeConfig{
		Device: "UUID=" + header(t, data).Header().UUID, Name: "data", Options: []string{"nofail"},
	}, c.Volumes[2])
	assert.Equal(t, g.machine(), c.Machine)

	r := g.reboots(s, append(old, data)...)
	require.NoError(t, r.err)
	assert.Len(t, r.events, 3)
	require.NoError(t, g.reboots(s, old...).err, "an initramfs that is older than the disk")
	g.volumes = append(g.volumes, data)
	g.requireEnrolled()

	before = g.headers()
	assert.Contains(t, g.fails(unlock.ExitRefused, passphrase, g.addArgs(data)...), "KW-1213", "an enrolment: it is one of the machine's")
	assert.True(t, bytes.Equal(before, g.headers()))
}

func cutsOf(steps []unlock.Step, into ...unlock.Step) []cut {
	var list []cut
	for _, step := range steps {
		list = append(list, cut{step, 0, 0})
	}
	for _, step := range into {
		for _, ms := range []time.Duration{5, 20} {
			list = append(list, cut{step, 0, ms * time.Millisecond})
		}
	}
	return list
}

// Wherever an addition is cut, the next boot opens what it opened before, and
// what the configuration names; and the addition is finished.
func TestAdditionCutAtEveryStepIsTakenUpAgain(t *testing.T) {
	s := startService(t)
	for _, c := range cutsOf(unlock.AddingSteps(), unlock.StepComplete, unlock.StepToken, unlock.StepKeyslot, unlock.StepAssign, unlock.StepCommit) {
		t.Run(c.String(), func(t *testing.T) {
			g := withKeys(t, s)
			old := slices.Clone(g.volumes)
			data := g.format("data")
			g.killIn(c, g.addArgs(data)...)
			cryptsetup(t, passphrase, "open", "--test-passphrase", "--key-slot", "0", "--key-file", "-", data)
			require.NoError(t, g.reboots(s, old...).err, "with the initramfs of before")
			require.NoError(t, g.reboots(s, g.configured(append(old, data)...)...).err, "with what is configured by now")

			if !g.added(append(old, data)...) { // the kill may come too late
				assert.NotContains(t, g.does(g.addArgs(data)...), "luksKillSlot")
			}
			require.NoFileExists(t, g.path("adding"))
			r := g.reboots(s, g.configured(append(old, data)...)...)
			require.NoError(t, r.err)
			assert.Len(t, r.events, 3)
			g.volumes = append(g.volumes, data)
			g.requireEnrolled()
		})
	}
}

// byPath has the configuration name its volumes by path, and their mappings as
// mappedHere does: no udev finds
// files by their UUIDs.
func (g *guest) byPath() {
	g.t.Helper()
	c, err := unlock.LoadConfig(g.config())
	require.NoError(g.t, err)
	for i, path := range g.configured(g.volumes...) {
		c.Volumes[i].Device, c.Volumes[i].Name = path, filepath.Base(path)
	}
	require.NoError(g.t, c.Write(g.config()))
}

// An addition stages the boots that can follow, whose files know the volume.
func TestAdditionStagesTheNextBoot(t *testing.T) {
	s := startService(t)
	g := withKeys(t, s)
	g.byPath()
	g.root = g.volumes[0]
	data, next := g.format("data"), g.path("esp/EFI/Linux/next.efi")
	g.image(next)
	out := g.does(append(g.addArgs(data), "--uki", next)...)
	assert.NotContains(t, out, "note:")
	assert.Contains(t, out, next+": gets NO keys: ")
	digest := regexp.MustCompile(`keywright measurement approve ([0-9a-f]{64})`).FindStringSubmatch(out)
	require.Len(t, digest, 2, out)
	_, err := s.ApproveMeasurement(t.Context(), operator(), digest[1], kms.DefaultGroup)
	require.NoError(t, err)
	m, err := s.FindMachine(t.Context(), g.machine())
	require.NoError(t, err)
	boots, err := s.NextBoots(t.Context(), []kms.Machine{*m})
	require.NoError(t, err)
	assert.Equal(t, kms.VerdictYes, boots[0].Verdict, boots[0].Detail)

	more := g.disk("more")
	out = g.does(append(g.formatArgs(more), "--uki", next)...)
	assert.Contains(t, out, next+": gets its keys\n")
	require.NoFileExists(t, g.path("adding"))
}

// A system that did not get its keys stages nothing; the volume is added.
func TestAdditionThatCannotStageEndsWell(t *testing.T) {
	s := startService(t)
	g := enrolled(t, s) // this boot asked for no keys
	g.byPath()
	data, next := g.format("data"), g.path("esp/EFI/Linux/next.efi")
	g.image(next)
	out := g.does(append(g.addArgs(data), "--uki", next)...)
	assert.Contains(t, out, "note: the boots that can follow are not staged: ")
	assert.Contains(t, out, "KW-1217")
	require.NoFileExists(t, g.path("adding"))
	assert.Len(t, g.volumesInConfig(), 3)
}

// Another disk does not disturb an addition that was interrupted.
func TestAdditionsAreTakenUpOneByOne(t *testing.T) {
	s := startService(t)
	g := withKeys(t, s)
	first, second := g.format("first"), g.format("second")
	g.killIn(cut{unlock.StepAssign, 0, 0}, g.addArgs(first)...)
	g.does(g.addArgs(second)...)
	assert.FileExists(t, g.path("adding"))
	g.does(g.addArgs(first)...)
	require.NoFileExists(t, g.path("adding"))
	all := append(slices.Clone(g.volumes), first, second)
	r := g.reboots(s, g.configured(all...)...)
	require.NoError(t, r.err)
	assert.Len(t, r.events, 4)
}

func TestAdditionThatIsRefusedChangesNothing(t *testing.T) {
	s := startService(t)
	g := withKeys(t, s)
	data := g.format("data")
	copied := g.path("copied")
	text, err := os.ReadFile(data)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(copied, text, 0o600))
	rootCopy := g.path("root-copy")
	text, err = os.ReadFile(g.volumes[0])
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(rootCopy, text, 0o600))
	plain := g.path("plain")
	require.NoError(t, os.WriteFile(plain, make([]byte, 32<<20), 0o600))
	old := g.path("luks1")
	require.NoError(t, os.WriteFile(old, make([]byte, 32<<20), 0o600))
	cryptsetup(t, passphrase, "luksFormat", "-q", "--type", "luks1", "--pbkdf-force-iterations", "1000", "--key-file", "-", old)

	own := g.volumes
	g.volumes = append(slices.Clone(own), data)
	before := g.headers()
	config, err := os.ReadFile(g.config())
	require.NoError(t, err)
	for name, c := range map[string]struct {
		code int
		with string
		args []string
		want string
	}{
		"no such device":      {unlock.ExitFailed, passphrase, g.addArgs(g.path("none")), "no such file or directory"},
		"no LUKS header":      {unlock.ExitRefused, passphrase, g.addArgs(plain), "reading the header of " + plain},
		"LUKS1":               {unlock.ExitRefused, passphrase, g.addArgs(old), "luks1"},
		"wrong passphrase":    {unlock.ExitFailed, "not the passphrase", g.addArgs(data), "the passphrase opens no keyslot"},
		"one UUID twice":      {unlock.ExitFailed, passphrase, []string{"enroll", "--config", g.config(), "--passphrase-fd", "3", "--device", data, "--device", copied}, "same LUKS UUID"},
		"copy of another":     {unlock.ExitRefused, passphrase, g.addArgs(rootCopy), "KW-1213"},
		"name is taken":       {unlock.ExitFailed, passphrase, append(g.addArgs(data), "--mapping", "luks-"+header(t, own[0]).Header().UUID), "two volumes have the name"},
		"name is none":        {unlock.ExitUsage, passphrase, append(g.addArgs(data), "--mapping", "a/b"), "--mapping"},
		"one name for two":    {unlock.ExitUsage, passphrase, append(g.addArgs(data), "--device", plain), "--mapping names one volume"},
		"a machine's name":    {unlock.ExitUsage, passphrase, append(g.addArgs(data), "--name", "web-18"), "adds a volume"},
		"another server":      {unlock.ExitUsage, passphrase, append(g.addArgs(data), "--server", "https://kw.example:1"), "this machine is enrolled at " + s.url},
		"another service key": {unlock.ExitUsage, passphrase, append(g.addArgs(data), "--service-key", "sha256:"+strings.Repeat("11", 32)), "this machine is enrolled at " + s.url},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Contains(t, strings.ToLower(g.fails(c.code, c.with, c.args...)), strings.ToLower(c.want))
			assert.True(t, bytes.Equal(before, g.headers()))
			now, err := os.ReadFile(g.config())
			require.NoError(t, err)
			assert.Equal(t, string(config), string(now))
			assert.NoFileExists(t, g.path("adding"))
		})
	}
}

func TestAdditionAsTheServiceRefusesIt(t *testing.T) {
	for name, c := range map[string]struct {
		number string
		change func(t *testing.T, s *service, g *guest)
	}{
		"pending":         {"KW-1207", func(*testing.T, *service, *guest) {}},
		"revoked":         {"KW-1208", func(t *testing.T, s *service, g *guest) { s.approve(t, g.machine()); s.revoke(t, g.machine()) }},
		"boot unapproved": {"KW-1203", func(t *testing.T, s *service, g *guest) { s.approve(t, g.machine()); g.boot("ovmf-secureboot-uki") }},
		"another service": {"KW-1216", func(t *testing.T, s *service, g *guest) {
			s.approve(t, g.machine())
			text, err := os.ReadFile(g.config())
			require.NoError(t, err)
			other := strings.ReplaceAll(string(text), s.pin(), "sha256:"+strings.Repeat("11", 32))
			require.NoError(t, os.WriteFile(g.config(), []byte(other), 0o600))
		}},
		"another machine": {"of another machine", func(t *testing.T, s *service, g *guest) {
			text, err := os.ReadFile(g.config())
			require.NoError(t, err)
			other := strings.ReplaceAll(string(text), g.machine(), strings.Repeat("0", 64))
			require.NoError(t, os.WriteFile(g.config(), []byte(other), 0o600))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s, g := startService(t), newGuest(t, 1)
			g.enroll(s)
			c.change(t, s, g)
			data := g.format("data")
			before, err := os.ReadFile(data)
			require.NoError(t, err)
			cmd := g.child(g.addArgs(data)...)
			give(t, cmd, passphrase)
			out, err := cmd.CombinedOutput()
			require.Error(t, err)
			assert.Contains(t, string(out), c.number)
			after, err := os.ReadFile(data)
			require.NoError(t, err)
			assert.True(t, bytes.Equal(before, after), "nothing was changed")
			assert.Len(t, g.configured(g.volumes[0]), 1)
		})
	}
}
