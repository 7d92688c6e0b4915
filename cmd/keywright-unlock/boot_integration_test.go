//go:build integration

package main

import (
	"bytes"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/hsm/tpm"
	"keywright.dev/kms"
	"keywright.dev/unlock"
	"keywright.dev/unlock/luks"
)

// result is what a boot in this process came to.
type result struct {
	err    error
	code   int
	events []string
	lines  string
	keys   [][]byte
}

// offClock is ten years behind.
type offClock struct{ unlock.SystemClock }

func (offClock) Now() time.Time { return time.Now().AddDate(-10, 0, 0) }

// hostOfTest is a machine without device-mapper whose resets are events.
func (g *guest) hostOfTest(out *bytes.Buffer, opener *recorder) host {
	return host{
		stdout: out, stderr: out, clock: offClock{}, unseal: opener.unseal, opener: opener,
		openTPM:  g.dialTPM,
		announce: func(line string) { out.WriteString(line + "\n") },
		question: func(question string) { out.WriteString(question + "\n") },
		consoles: func() []string { return nil },
		harden:   func() error { return nil },
		reboot:   func() error { opener.events = append(opener.events, "reboot"); return nil },
		run:      unlock.RunDir(g.path("run")),
	}
}

// runHere runs a command in this process.
func (g *guest) runHere(h host, args ...string) int {
	g.t.Helper()
	code := run(g.t.Context(), h, args)
	for _, conn := range g.conns {
		require.NoError(g.t, conn.Close())
	}
	g.conns = nil
	return code
}

// dialTPM connects to the machine's TPM until [guest.runHere] ends.
func (g *guest) dialTPM(string) (*tpm.Device, error) {
	conn, err := net.Dial("unix", g.socket)
	if err != nil {
		return nil, err
	}
	g.conns = append(g.conns, conn)
	return tpm.New(socketTPM{conn}), nil
}

// bootHere boots against a service in this process.
func (g *guest) bootHere(s *service, more ...string) *result {
	g.t.Helper()
	return g.bootWith(g.bootConfig([]string{s.url}, s.pin()), new(recorder), more...)
}

func (g *guest) bootWith(config string, opener *recorder, more ...string) *result {
	g.t.Helper()
	r, out := new(result), new(bytes.Buffer)
	r.code = g.runHere(g.hostOfTest(out, opener), append([]string{"boot", "--config", config}, more...)...)
	r.events, r.lines, r.keys = opener.events, out.String(), opener.keys
	if r.code != unlock.ExitDone {
		r.err = errors.New(r.lines)
	}
	return r
}

func (g *guest) pcr15() [32]byte {
	g.t.Helper()
	g.turn.Lock()
	defer g.turn.Unlock()
	value, err := tpm.New(g.tpm).PCR15()
	require.NoError(g.t, err)
	return value
}

// enrolled returns a machine that is enrolled, approved and restarted.
func enrolled(t *testing.T, s *service) *guest {
	t.Helper()
	g := newGuest(t, 2)
	g.enroll(s)
	s.approve(t, g.machine())
	g.boot("ovmf-uki")
	return g
}

// refusedWith holds that a boot was refused with a code, extended nothing and
// opened nothing.
func (g *guest) refusedWith(r *result, number string) {
	g.t.Helper()
	require.Equal(g.t, unlock.ExitRefused, r.code, r.lines)
	assert.Contains(g.t, r.lines, number)
	assert.Empty(g.t, r.events)
	assert.Zero(g.t, g.pcr15())
}

func TestRefusals(t *testing.T) {
	s := startService(t)
	t.Run("pending", func(t *testing.T) {
		g := newGuest(t, 1)
		g.enroll(s)
		g.boot("ovmf-uki")
		g.refusedWith(g.bootHere(s, "--deadline", "1ms"), "KW-1207 refused by 127.0.0.1")
	})
	g := enrolled(t, s)
	t.Run("measurement", func(t *testing.T) {
		g.boot("ovmf-secureboot-uki")
		g.refusedWith(g.bootHere(s, "--deadline", "1ms"), "KW-1203")
	})
	g.boot("ovmf-uki")
	t.Run("unknown machine", func(t *testing.T) {
		g.refusedWith(g.bootHere(startService(t), "--deadline", "1ms"), "KW-1206")
	})
	t.Run("another service key is pinned", func(t *testing.T) {
		config := g.bootConfig([]string{s.url}, startService(t).pin())
		g.refusedWith(g.bootWith(config, new(recorder), "--deadline", "1ms"), "KW-1216")
	})
	t.Run("log of another boot", func(t *testing.T) {
		log, err := os.ReadFile(g.path("log"))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(g.path("log"), log[:len(log)-200], 0o600))
		g.refusedWith(g.bootHere(s, "--deadline", "1ms"), "KW-1205")
		require.NoError(t, os.WriteFile(g.path("log"), log, 0o600))
	})
	t.Run("revoked", func(t *testing.T) {
		s.revoke(t, g.machine())
		g.refusedWith(g.bootHere(s, "--deadline", "1ms"), "KW-1208")
	})
}

func TestNotEnrolledSaysSoAtOnce(t *testing.T) {
	s, g := startService(t), newGuest(t, 1)
	r := g.bootHere(s)
	assert.Equal(t, unlock.ExitFailed, r.code)
	assert.Contains(t, r.lines, "KW-1403")
}

func TestApprovalArrivesWhileTheMachineWaits(t *testing.T) {
	s, g := startService(t), newGuest(t, 1)
	g.enroll(s)
	g.boot("ovmf-uki")
	machine, config := g.machine(), g.bootConfig([]string{s.url}, s.pin())
	out, opener := new(bytes.Buffer), new(recorder)
	h := g.hostOfTest(out, opener)
	h.announce = func(line string) {
		if out.Len() == 0 {
			s.approve(t, machine)
		}
		out.WriteString(line + "\n")
	}
	require.Equal(t, unlock.ExitDone, g.runHere(h, "boot", "--config", config), out.String())
	assert.Contains(t, out.String(), "KW-1207")
	assert.Contains(t, out.String(), "next try")
	assert.Equal(t, []string{"open volume0"}, opener.events)
}

func TestApprovalTakesThePromptAway(t *testing.T) {
	s, g := startService(t), newGuest(t, 1)
	g.enroll(s)
	g.boot("ovmf-uki")
	machine, config := g.machine(), g.bootConfig([]string{s.url}, s.pin())
	c, err := unlock.LoadConfig(config)
	require.NoError(t, err)
	c.PromptAfter = new(unlock.Duration) // at once
	require.NoError(t, c.Write(config))
	program, asking := never(t)
	out, opener := new(bytes.Buffer), new(recorder)
	h := g.hostOfTest(out, opener)
	h.question = func(question string) {
		if out.Len() == 0 {
			require.Eventually(t, exists(asking), time.Minute, time.Millisecond)
			s.approve(t, machine)
		}
		out.WriteString(question + "\n")
	}
	require.Equal(t, unlock.ExitDone, g.runHere(h, "boot", "--config", config, "--prompt", program), out.String())
	assert.Regexp(t, `^keywright KW-1207 refused by .*: machine_pending; next try \d+ s; passphrase: \n`, out.String())
	assert.Regexp(t, `\nkeywright: opened .*volume0\n$`, out.String())
	assert.Equal(t, []string{"open volume0"}, opener.events)
}

// TestAttack11HeaderOfAnotherVolume puts a header with an own volume key, the
// old UUID and our token in the place of the enrolled one.
func TestAttack11HeaderOfAnotherVolume(t *testing.T) {
	s := startService(t)
	g := enrolled(t, s)
	g.swap(g.volumes[0], "attacker")
	g.refusedWith(g.bootHere(s, "--deadline", "1ms"), "KW-1211")
}

// TestAttack11KeyslotThatCostsTooMuch has our token name a keyslot that would
// take the memory of a small machine. It is refused before anything is asked.
func TestAttack11KeyslotThatCostsTooMuch(t *testing.T) {
	s := startService(t)
	g := enrolled(t, s)
	cryptsetup(t, passphrase, "luksConvertKey", "-q", "--key-slot", "0", "--pbkdf", "argon2id", "--pbkdf-force-iterations", "4",
		"--pbkdf-memory", "1024", "--key-file", "-", g.volumes[1])
	token := header(t, g.volumes[1]).OwnTokens()[0]
	require.NoError(t, luks.Cryptsetup{}.AssignToken(t.Context(), g.volumes[1], token, 0))
	r := g.bootHere(s)
	g.refusedWith(r, "KW-1402")
	assert.Contains(t, r.lines, "keyslot-foreign")
	assert.NotContains(t, r.lines, "next try")
}

// TestAttack20ExtraKeyslotIsReported does not stop the boot, and is seen.
func TestAttack20ExtraKeyslotIsReported(t *testing.T) {
	s := startService(t)
	g := enrolled(t, s)
	require.NoError(t, g.bootHere(s).err)
	assert.Zero(t, s.alarms(t, kms.AlarmForeign), "what the enrolment reported is accepted")
	g.addSlot(g.volumes[0], "left behind", 7)
	g.boot("ovmf-uki")
	require.NoError(t, g.bootHere(s).err)
	id := header(t, g.volumes[0]).OwnTokens()[0].Volume
	slots := s.slots(t, id)
	assert.Equal(t, []int{0, 1, 2, 7}, slots)
	flagged, err := s.store.AlarmedVolumes(t.Context(), kms.AlarmForeign, "", 10)
	require.NoError(t, err)
	require.Len(t, flagged, 1)
	assert.Equal(t, id, flagged[0].ID)
	foreign, err := flagged[0].ForeignItems()
	require.NoError(t, err)
	require.Len(t, foreign, 1)
	assert.Equal(t, "keyslot", foreign[0].Kind)
	assert.Regexp(t, "^7, pbkdf2, [0-9a-f]{8}$", foreign[0].Text)
	_, err = s.AcceptVolume(t.Context(), operator(), &flagged[0], kms.Acceptance{})
	require.NoError(t, err)
	g.boot("ovmf-uki")
	require.NoError(t, g.bootHere(s).err)
	assert.Zero(t, s.alarms(t, kms.AlarmForeign))

	cryptsetup(t, passphrase, "luksKillSlot", "-q", "--key-file", "-", g.volumes[0], "7")
	g.addSlot(g.volumes[0], "another in its place", 7)
	g.boot("ovmf-uki")
	require.NoError(t, g.bootHere(s).err)
	assert.EqualValues(t, 1, s.alarms(t, kms.AlarmForeign))
}

// TestAttack31PinnedKeyIsWhatCounts has another service, with a store of its own
// that knows the machine, answer in the place of the pinned one.
func TestAttack31PinnedKeyIsWhatCounts(t *testing.T) {
	s := startService(t)
	g := enrolled(t, s)
	forger := startProxy(t, s.url, func(path string, body []byte) []byte {
		if !strings.HasSuffix(path, "/release") {
			return body
		}
		i := bytes.Index(body, []byte(`"signature":"`)) + len(`"signature":"`) + 20
		body[i] = "AB"[min(1, int(body[i]^'B'))]
		return body
	})
	r := g.bootWith(g.bootConfig([]string{forger}, s.pin()), new(recorder), "--deadline", "1ms")
	assert.Equal(t, unlock.ExitFailed, r.code)
	assert.Contains(t, r.lines, "KW-1405")
	assert.Empty(t, r.events)
	assert.Zero(t, g.pcr15())
}

func TestLostResponseIsAskedForAgain(t *testing.T) {
	s := startService(t)
	g := enrolled(t, s)
	losses := 2
	lossy := startProxy(t, s.url, func(path string, body []byte) []byte {
		if strings.HasSuffix(path, "/release") && losses > 0 {
			losses--
			return nil
		}
		return body
	})
	require.NoError(t, g.bootWith(g.bootConfig([]string{lossy}, s.pin()), new(recorder)).err)
	assert.Zero(t, losses)
}

func TestHangingServerDoesNotHoldUpABoot(t *testing.T) {
	s := startService(t)
	g := enrolled(t, s)
	l := loopback(t, "tcp", "127.0.0.1:0")
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
		}
	}()
	r := g.bootWith(g.bootConfig([]string{"https://" + l.Addr().String(), s.url}, s.pin()), new(recorder))
	require.NoError(t, r.err)
	assert.NotContains(t, r.lines, "next try")
}

func TestAllOrNothing(t *testing.T) {
	s := startService(t)
	g := enrolled(t, s)
	r := g.bootWith(g.bootConfig([]string{s.url}, s.pin()), &recorder{fail: "volume1"})
	assert.Equal(t, unlock.ExitFailed, r.code)
	assert.Equal(t, []string{"open volume0", "close volume0"}, r.events)
	assert.NotZero(t, g.pcr15())
	assert.Contains(t, r.lines, "KW-1406")
}
