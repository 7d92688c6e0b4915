//go:build integration

package main

import (
	"bytes"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/unlock"
)

// unlocked returns a machine that runs with its keys: its first volume is the root.
func unlocked(t *testing.T, s *service, volumes int) *guest {
	t.Helper()
	g := newGuest(t, volumes)
	g.enroll(s)
	s.approve(t, g.machine())
	g.boot("ovmf-uki")
	r := g.bootHere(s)
	require.NoError(t, r.err)
	g.root = g.volumes[0]
	return g
}

// ask runs a command of a running system.
func (g *guest) ask(s *service, command string, more ...string) (out string, code int) {
	g.t.Helper()
	var text bytes.Buffer
	h := g.hostOfTest(&text, new(recorder))
	h.esp = []string{g.path("esp")}
	h.mapped = func() ([]unlock.Device, error) {
		if g.root == "" {
			return nil, nil
		}
		return []unlock.Device{{Path: g.root, Name: filepath.Base(g.root), Root: true}}, nil
	}
	h.ready = func() error { return nil }
	args := []string{command, "--config", g.bootConfig([]string{s.url}, s.pin())}
	code = g.runHere(h, append(args, more...)...)
	return text.String(), code
}

func TestNextBootIsForetold(t *testing.T) {
	s := startService(t)
	g := unlocked(t, s, 2)
	out, code := g.ask(s, "preflight")
	assert.Equal(t, unlock.ExitDone, code, out)
	assert.Contains(t, out, "next boot: yes")
	out, code = g.ask(s, "stage")
	assert.Equal(t, unlock.ExitDone, code, out)
	assert.Regexp(t, `staged for this machine until \d{4}-\d\d-\d\d`, out)
	out, code = g.ask(s, "status")
	assert.Equal(t, unlock.ExitDone, code, out)
	assert.Contains(t, out, "this boot  "+string(unlock.BootReleased))
	assert.Contains(t, out, "open, root, volume/")
	assert.Contains(t, out, "next boot: yes")
}

// A new image is the group's: foretold before it boots, and approved before it.
func TestUnapprovedKernelIsForetold(t *testing.T) {
	s := startService(t)
	g := unlocked(t, s, 1)
	g.image(g.path("esp/EFI/Linux/next.efi"))
	out, code := g.ask(s, "stage", "--hook")
	assert.Equal(t, unlock.ExitDone, code, "a hook fails nobody's upgrade")
	assert.Contains(t, out, "W: keywright-unlock: the next boot, "+g.path("esp/EFI/Linux/next.efi")+", would get no keys")
	digest := regexp.MustCompile(`keywright measurement approve ([0-9a-f]{64})`).FindStringSubmatch(out)
	require.Len(t, digest, 2, out)
	out, code = g.ask(s, "preflight")
	assert.Equal(t, unlock.ExitRefused, code)
	assert.Contains(t, out, "next boot: no: measurement:")
	_, code = g.ask(s, "stage")
	assert.Equal(t, unlock.ExitRefused, code)

	_, err := s.ApproveMeasurement(t.Context(), operator(), digest[1], kms.DefaultGroup)
	require.NoError(t, err)
	out, code = g.ask(s, "preflight")
	assert.Equal(t, unlock.ExitDone, code, out)

	g.image(g.path("esp/EFI/Linux/other.efi"))
	out, code = g.ask(s, "preflight")
	assert.Equal(t, unlock.ExitUnknown, code)
	assert.Contains(t, out, "name that of the next boot with --uki")
	out, code = g.ask(s, "preflight", "--uki", g.path("esp/EFI/Linux/next.efi"))
	assert.Equal(t, unlock.ExitDone, code, out)
}

func TestNextBootThatGetsNoKeys(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, s *service, g *guest)
		want  string
		code  int
	}{
		"a keyslot is missing": {func(t *testing.T, _ *service, g *guest) {
			cryptsetup(t, passphrase, "luksKillSlot", "-q", "--key-file", "-", g.volumes[1], "1")
		}, `volume1: no keyslot of it is ours`, unlock.ExitRefused},
		"the header is gone": {func(t *testing.T, _ *service, g *guest) {
			cryptsetup(t, "", "luksErase", "-q", g.volumes[1])
			cryptsetup(t, passphrase, "luksFormat", "-q", "--type", "luks1", "--iter-time", "1", "--key-file", "-", g.volumes[1])
		}, `volume1: .*header`, unlock.ExitRefused},
		"the machine is revoked": {func(t *testing.T, s *service, g *guest) { s.revoke(t, g.machine()) },
			`KW-1208 machine_revoked`, unlock.ExitRefused},
		"no service": {func(t *testing.T, s *service, _ *guest) { s.url = "https://127.0.0.1:1" },
			`KW-1501 unavailable`, unlock.ExitUnavailable},
		"the root is another mapping": {func(_ *testing.T, _ *service, g *guest) { g.root = g.format("other") },
			`the root stands on mapping other`, unlock.ExitRefused},
		"the root is no mapping": {func(_ *testing.T, _ *service, g *guest) { g.root = "" },
			`the root stands on no mapping`, unlock.ExitRefused},
		"a boot by passphrase": {func(t *testing.T, s *service, g *guest) {
			g.boot("ovmf-uki")
			assert.Equal(t, unlock.ExitDone, g.runHere(g.hostOfTest(new(bytes.Buffer), new(recorder)), "close", "--config", g.path("boot.toml")))
		}, `KW-1217 not_released`, unlock.ExitUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			s := startService(t)
			g := unlocked(t, s, 2)
			c.spoil(t, s, g)
			out, code := g.ask(s, "preflight")
			assert.Equal(t, c.code, code, out)
			assert.Regexp(t, `^next boot: (no|unknown): .*`+c.want, out)
			assert.Equal(t, c.code == unlock.ExitUnknown, strings.Contains(out, "next boot: unknown"))
			out, code = g.ask(s, "stage", "--hook")
			assert.Equal(t, unlock.ExitDone, code)
			assert.Contains(t, out, "W: keywright-unlock:")
		})
	}
}

// What the machine knows of its next boot stands at the service as well.
func TestFaultIsShownToOperators(t *testing.T) {
	s := startService(t)
	g := unlocked(t, s, 2)
	cryptsetup(t, passphrase, "luksKillSlot", "-q", "--key-file", "-", g.volumes[1], "1")
	_, code := g.ask(s, "stage")
	assert.Equal(t, unlock.ExitRefused, code)
	m, err := s.FindMachine(t.Context(), g.machine())
	require.NoError(t, err)
	boots, err := s.NextBoots(t.Context(), []kms.Machine{*m})
	require.NoError(t, err)
	assert.Equal(t, kms.VerdictNo, boots[0].Verdict)
	assert.Contains(t, boots[0].Detail, "volume1: no keyslot of it is ours")
}

func TestStageOfNobody(t *testing.T) {
	g := newGuest(t, 1)
	var out bytes.Buffer
	h := g.hostOfTest(&out, new(recorder))
	assert.Equal(t, unlock.ExitDone, g.runHere(h, "stage", "--hook", "--config", g.path("none.toml")))
	assert.Empty(t, out.String(), "a hook says nothing on a machine that is not enrolled")
	assert.Equal(t, unlock.ExitFailed, g.runHere(h, "stage", "--config", g.path("none.toml")))
	assert.Contains(t, out.String(), "none.toml")
	assert.Equal(t, unlock.ExitUsage, g.runHere(h, "preflight", "--nothing"))
}
