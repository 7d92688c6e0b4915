//go:build integration

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/hsm/tpm"
	"keywright.dev/kms/exchange"
	"keywright.dev/unlock"
)

// notReleased is PCR 15 after a hand-over without a release.
func notReleased() [32]byte { return exchange.Extend([32]byte{}, exchange.NoReleaseEvent()) }

// closes runs close in this process and returns what it said and did.
func (g *guest) closes(code int, args ...string) (out string, events []string) {
	g.t.Helper()
	said, opener := new(bytes.Buffer), new(recorder)
	h := g.hostOfTest(said, opener)
	h.clock = hurried{}
	require.Equal(g.t, code, g.runHere(h, append([]string{"close"}, args...)...), said.String())
	return said.String(), opener.events
}

func TestClose(t *testing.T) {
	s := startService(t)
	g := enrolled(t, s)
	for range 2 {
		var out bytes.Buffer
		require.Equal(t, unlock.ExitDone, g.runHere(g.hostOfTest(&out, new(recorder)), "close", "--config", g.path("none"), "--root", "/"), out.String())
		assert.Equal(t, notReleased(), g.pcr15())
	}
	r := g.bootHere(s)
	assert.Contains(t, r.lines, "KW-1404")
	assert.Empty(t, r.events)
}

// A boot that runs on in the background ends before the hand-over goes on.
func TestCloseEndsABootThatWaits(t *testing.T) {
	g := newGuest(t, 0)
	c := unlock.Config{
		Servers: []string{"https://127.0.0.1:1"}, ServiceKeys: []string{"sha256:" + strings.Repeat("00", 32)},
		Volumes: []unlock.VolumeConfig{{Device: "/dev/keywright-none", Name: "none"}},
	}
	require.NoError(t, c.Write(g.path("boot.toml")))
	cmd := g.child("boot", "--config", g.path("boot.toml"), "--deadline", "0s")
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool {
		holder, err := os.ReadFile(g.path("run/boot.lock"))
		return err == nil && len(holder) > 0
	}, time.Minute, time.Millisecond, "the boot began")
	out := new(bytes.Buffer)
	require.Equal(t, unlock.ExitDone, g.runHere(g.hostOfTest(out, new(recorder)), "close", "--config", g.path("none")), out.String())
	require.Error(t, cmd.Wait())
	assert.Equal(t, unlock.ExitFailed, cmd.ProcessState.ExitCode())
}

// Without a TPM device a machine that was never enrolled goes on; one that was
// is reset.
func TestCloseWithoutTPM(t *testing.T) {
	g := &guest{t: t, dir: t.TempDir()}
	out, opener := new(bytes.Buffer), new(recorder)
	h := g.hostOfTest(out, opener)
	h.clock = hurried{}
	h.openTPM = func(string) (*tpm.Device, error) { return nil, os.ErrNotExist }
	assert.Equal(t, unlock.ExitDone, g.runHere(h, "close", "--config", g.path("none")))
	assert.Empty(t, opener.events)
	assert.Equal(t, unlock.ExitFailed, g.runHere(h, "close", "--config", g.config()))
	assert.Equal(t, []string{"reboot"}, opener.events)
	assert.Contains(t, out.String(), "KW-1401")
}

// Whoever calls it wrongly does not hand over, and cannot ask for keys either.
func TestCloseThatIsCalledWronglyResets(t *testing.T) {
	for name, args := range map[string][]string{
		"unknown flag":  {"--rot", "/"},
		"an argument":   {"/dev/sda"},
		"empty root":    {"--root", ""},
		"no value":      {"--root"},
		"root or shell": {"--root", "/", "--shell"},
		"root or image": {"--root", "/", "--resume", "/dev/sda"},
		"empty image":   {"--resume", ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t, 0)
			out, events := g.closes(unlock.ExitUsage, append([]string{"--config", g.path("none")}, args...)...)
			assert.Equal(t, []string{"reboot"}, events)
			assert.Equal(t, notReleased(), g.pcr15())
			assert.Contains(t, out, "resetting the machine")
		})
	}
}

func TestCloseThatPanicsResets(t *testing.T) {
	g := &guest{t: t, dir: t.TempDir()}
	out, opener := new(bytes.Buffer), new(recorder)
	h := g.hostOfTest(out, opener)
	h.clock = hurried{}
	h.openTPM = func(string) (*tpm.Device, error) { panic("a fault") }
	assert.Equal(t, unlock.ExitFailed, g.runHere(h, "close", "--config", g.path("none")))
	assert.Equal(t, []string{"reboot"}, opener.events)
	assert.Contains(t, out.String(), "a fault of this program")
}

// TestCloseWithABrokenConfiguration and nobody who reads its complaint about it
// extends PCR 15 all the same.
func TestCloseWithABrokenConfiguration(t *testing.T) {
	g := newGuest(t, 0)
	require.NoError(t, os.WriteFile(g.path("broken"), []byte("servers = 1"), 0o600))
	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	require.NoError(t, reader.Close())
	cmd := g.child("close", "--config", g.path("broken"))
	cmd.Stderr = writer
	require.NoError(t, cmd.Run())
	require.NoError(t, writer.Close())
	assert.Equal(t, notReleased(), g.pcr15())
	out, events := g.closes(unlock.ExitDone, "--config", g.path("broken"))
	assert.Contains(t, out, "reading the configuration")
	assert.Empty(t, events)
}

// of returns the path of a configuration that names a machine.
func (g *guest) of(machine string) string {
	g.t.Helper()
	c := unlock.Config{Servers: []string{"https://127.0.0.1:1"}, ServiceKeys: []string{"sha256:" + strings.Repeat("00", 32)}, Machine: machine}
	require.NoError(g.t, c.Write(g.path("of.toml")))
	return g.path("of.toml")
}

// TestAttack13AnotherTPMAnswers has an interposer answer with a TPM of its own:
// neither is it asked for keys with, nor is extending it a hand-over.
func TestAttack13AnotherTPMAnswers(t *testing.T) {
	s := startService(t)
	g := enrolled(t, s)
	c, err := unlock.LoadConfig(g.bootConfig([]string{s.url}, s.pin()))
	require.NoError(t, err)
	c.Machine = strings.Repeat("0", 64)
	require.NoError(t, c.Write(g.path("boot.toml")))
	r := g.bootWith(g.path("boot.toml"), new(recorder))
	assert.Equal(t, unlock.ExitFailed, r.code)
	assert.Regexp(t, `KW-1401 tpm: .*the TPM of another machine`, r.lines)
	assert.Empty(t, r.events)

	out, events := g.closes(unlock.ExitFailed, "--config", g.path("boot.toml"))
	assert.Contains(t, out, "KW-1401")
	assert.Equal(t, []string{"reboot"}, events)
	assert.Zero(t, g.pcr15())
	_, events = g.closes(unlock.ExitDone, "--config", g.of(g.machine()))
	assert.Empty(t, events)
	assert.Equal(t, notReleased(), g.pcr15())
}

// A TPM that gives no keys is extended all the same, unless it had to be a
// certain machine's.
func TestCloseOfATPMWithoutKeys(t *testing.T) {
	g := newGuest(t, 0)
	machine := g.machine()
	// TPM2_HierarchyControl (TPM 2.0 part 3, section 24.2), by the platform, of
	// the endorsement hierarchy: off.
	response, err := g.tpm.Send([]byte{
		0x80, 0x02, 0, 0, 0, 32, 0, 0, 0x01, 0x21, 0x40, 0, 0, 0x0c,
		0, 0, 0, 9, 0x40, 0, 0, 0x09, 0, 0, 0, 0, 0, 0x40, 0, 0, 0x0b, 0,
	})
	require.NoError(t, err)
	require.Zero(t, binary.BigEndian.Uint32(response[6:]))

	out, events := g.closes(unlock.ExitFailed, "--config", g.of(machine))
	assert.Contains(t, out, "the endorsement hierarchy is disabled")
	assert.Equal(t, []string{"reboot"}, events)
	assert.Zero(t, g.pcr15())
	out, events = g.closes(unlock.ExitDone, "--config", g.of(""))
	assert.Contains(t, out, "warning")
	assert.Empty(t, events)
	assert.Equal(t, notReleased(), g.pcr15())
}

// hurried makes waiting short.
type hurried struct{ unlock.SystemClock }

func (h hurried) Now() time.Time { return time.Unix(0, 0).Add(time.Since(time.Unix(0, 0)) * 1000) }

func (hurried) Sleep(ctx context.Context, _ time.Duration) error { return ctx.Err() }
