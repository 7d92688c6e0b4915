//go:build integration

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/exchange"
	"keywright.dev/unlock"
	"keywright.dev/unlock/luks"
)

func TestEnrollApproveBoot(t *testing.T) {
	s, g := startService(t), newGuest(t, 2)
	out := g.enroll(s)
	assert.Contains(t, out, "keywright machine approve web-17 --ek-hash "+g.machine())
	assert.Contains(t, out, "note: / is on none of these volumes")
	g.requireEnrolled()
	c, err := unlock.LoadConfig(g.config())
	require.NoError(t, err)
	assert.Equal(t, []string{s.url}, c.Servers)
	assert.Equal(t, []string{s.pin()}, c.ServiceKeys)
	assert.Equal(t, string(exchange.EKP384), c.EKTemplate)
	assert.Equal(t, g.machine(), c.Machine)
	require.Len(t, c.Volumes, 2)
	assert.Equal(t, "UUID="+min(header(t, g.volumes[0]).Header().UUID, header(t, g.volumes[1]).Header().UUID), c.Volumes[0].Device)

	s.approve(t, g.machine())
	g.boot("ovmf-uki")
	cmd := g.child("boot", "--config", g.bootConfig([]string{s.url}, s.pin()))
	text, err := cmd.CombinedOutput()
	require.NoError(t, err, string(text))
	receipt, err := os.ReadFile(filepath.Join(g.path("run"), "receipt"))
	require.NoError(t, err)
	assert.Equal(t, g.machine(), s.receipt(t, receipt).Actor.ID)

	cmd = g.child("boot", "--config", g.bootConfig([]string{s.url}, s.pin()))
	text, err = cmd.CombinedOutput()
	require.Error(t, err, "one release a boot")
	assert.Contains(t, string(text), "KW-1404")
}

// requireEnrolled holds that every volume has a keyslot for boots and one for its
// recovery key, each with its token, and is otherwise as it was, and that the
// passphrase opens.
func (g *guest) requireEnrolled() {
	g.t.Helper()
	for _, path := range g.volumes {
		v := header(g.t, path)
		tokens := v.OwnTokens()
		require.Len(g.t, tokens, 2)
		require.Len(g.t, v.OwnSlots(tokens[0].Volume), 1)
		require.Len(g.t, v.SlotsFor(tokens[0].Volume, luks.PurposeRecovery), 1)
		require.Len(g.t, v.Inventory().Keyslots, 3, "no orphan keyslot")
		require.NoFileExists(g.t, g.path("enrolling"))
		cryptsetup(g.t, passphrase, "open", "--test-passphrase", "--key-slot", "0", "--key-file", "-", path)
	}
}

// fails runs an enrolment that fails, and returns what it said.
func (g *guest) fails(code int, text string, args ...string) string {
	g.t.Helper()
	cmd := g.child(args...)
	give(g.t, cmd, text)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.Error(g.t, cmd.Run(), out.String())
	require.Equal(g.t, code, cmd.ProcessState.ExitCode(), out.String())
	return out.String()
}

// headers returns the metadata of all volumes, byte for byte.
func (g *guest) headers() []byte {
	g.t.Helper()
	var all []byte
	for _, path := range g.volumes {
		data, err := os.ReadFile(path)
		require.NoError(g.t, err)
		all = append(all, data[:16<<20]...)
	}
	return all
}

func TestEnrolmentThatIsRefusedChangesNothing(t *testing.T) {
	s, g := startService(t), newGuest(t, 2)
	before := g.headers()
	other := startService(t)

	out := g.fails(unlock.ExitFailed, "not the passphrase", g.enrollArgs(s)...)
	assert.Contains(t, out, "the passphrase opens no keyslot")
	out = g.fails(unlock.ExitRefused, passphrase, append(g.enrollArgs(s), "--service-key", other.pin())...)
	assert.Contains(t, out, "KW-1216")
	out = g.fails(unlock.ExitUnavailable, passphrase, append(g.enrollArgs(s), "--server", "https://127.0.0.1:1")...)
	assert.Contains(t, out, "connection refused")
	out = g.fails(unlock.ExitFailed, passphrase, append(g.enrollArgs(s), "--device", g.volumes[0])...)
	assert.Contains(t, out, "same LUKS UUID")
	out = g.fails(unlock.ExitUsage, passphrase, append(g.enrollArgs(s), "--server", "http://127.0.0.1:1")...)
	assert.Contains(t, out, "https://")
	assert.True(t, bytes.Equal(before, g.headers()))
}

// The first server is gone, and the service has the second of two keys.
func TestEnrolmentTriesTheNextServerAndKey(t *testing.T) {
	s, g := startService(t), newGuest(t, 1)
	c, err := unlock.LoadConfig(g.config())
	require.NoError(t, err)
	c.Servers, c.ServiceKeys = []string{"https://127.0.0.1:1", s.url}, []string{"sha256:" + strings.Repeat("11", 32), s.pin()}
	require.NoError(t, c.Write(g.config()))
	cmd := g.child("enroll", "--config", g.config(), "--name", "web-17", "--passphrase-fd", "3", "--device", g.volumes[0])
	give(t, cmd, passphrase)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	assert.Contains(t, string(out), "going on with "+strings.TrimPrefix(s.url, "https://"))
	assert.Contains(t, string(out), "going on with the next service key")
	g.requireEnrolled()
	written, err := unlock.LoadConfig(g.config())
	require.NoError(t, err)
	assert.Equal(t, c.Servers, written.Servers)
	assert.Equal(t, c.ServiceKeys, written.ServiceKeys)

	g.enroll(s, "--server", s.url, "--service-key", s.pin())
	written, err = unlock.LoadConfig(g.config())
	require.NoError(t, err)
	assert.Equal(t, []string{s.url, "https://127.0.0.1:1"}, written.Servers, "what is named comes first, and drops no other")
	assert.Equal(t, []string{s.pin(), c.ServiceKeys[0]}, written.ServiceKeys)
}

// An answer that is lost on its way is asked for again at the next server.
func TestEnrolmentSurvivesALostAnswer(t *testing.T) {
	for _, path := range []string{"begin", "complete", "challenge", "commit"} {
		t.Run(path, func(t *testing.T) {
			s, g := startService(t), newGuest(t, 1)
			lossy := startProxy(t, s.url, func(asked string, body []byte) []byte {
				if strings.HasSuffix(asked, "/"+path) {
					return nil
				}
				return body
			})
			c, err := unlock.LoadConfig(g.config())
			require.NoError(t, err)
			c.Servers = []string{lossy, s.url}
			require.NoError(t, c.Write(g.config()))
			g.enroll(s, "--server", lossy)
			g.requireEnrolled()
		})
	}
}

func TestVolumesOfOtherShapesAreRefused(t *testing.T) {
	s, g := startService(t), newGuest(t, 1)
	for code, format := range map[luks.Code][]string{
		luks.CodeLUKS1:         {"--type", "luks1"},
		luks.CodeSegmentCipher: {"--type", "luks2", "--cipher", "aes-cbc-essiv:sha256", "--key-size", "256"},
	} {
		path := g.path("odd")
		require.NoError(t, os.WriteFile(path, make([]byte, 32<<20), 0o600))
		cryptsetup(t, passphrase, append([]string{"luksFormat", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", "-", path}, format...)...)
		out := g.fails(unlock.ExitRefused, passphrase, append(g.enrollArgs(s), "--device", path)...)
		assert.Contains(t, out, string(code))
		assert.NotContains(t, out, "step: check-passphrase")
	}
}

// Whatever is not ours stays, slot and token alike.
func TestForeignSlotsAndTokensStay(t *testing.T) {
	s, g := startService(t), newGuest(t, 1)
	path := g.volumes[0]
	g.kill(s, cut{unlock.StepKeyslot, 0, 0})
	intended := header(t, path).OwnTokens()[0].Slot
	g.addSlot(path, "somebody else's", intended)
	cryptsetup(t, `{"type":"clevis","keyslots":["0"],"jwe":{}}`, "token", "import", "--token-id", "9", "--json-file", "-", path)

	g.enroll(s)
	v := header(t, path)
	require.Len(t, v.OwnTokens(), 2)
	for _, token := range v.OwnTokens() {
		assert.NotEqual(t, []int{intended}, token.Keyslots)
	}
	assert.Len(t, v.Inventory().Keyslots, 4)
	assert.Len(t, v.Inventory().Tokens, 3)
	cryptsetup(t, "somebody else's", "open", "--test-passphrase", "--key-slot", fmt.Sprint(intended), "--key-file", "-", path)
}

func (g *guest) addSlot(path, key string, slot int) {
	g.t.Helper()
	file := g.path("key")
	require.NoError(g.t, os.WriteFile(file, []byte(passphrase), 0o600))
	cryptsetup(g.t, key, "luksAddKey", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
		"--key-file", file, "--new-key-slot", fmt.Sprint(slot), "--new-keyfile", "-", path)
}

// A machine that moves to another service leaves no key of the old one.
func TestEnrolmentElsewhereIsReplaced(t *testing.T) {
	first, second, g := startService(t), startService(t), newGuest(t, 2)
	g.enroll(first)
	before := header(t, g.volumes[0]).OwnTokens()[0].Volume
	key := g.recoveryKey(first, g.volumes[0])
	require.NoError(t, typed(key, g.volumes[0]))
	out := g.enroll(second)
	assert.Contains(t, out, "note: killing keyslot")
	g.requireEnrolled()
	assert.NotEqual(t, before, header(t, g.volumes[0]).OwnTokens()[0].Volume)
	require.Error(t, typed(key, g.volumes[0]), "nor a recovery key of the old one")
	g.requireRecovery(second)
}

// What an enrolment elsewhere may have left in a slot is named, not killed.
func TestSlotThatNobodyCanOpenIsNamed(t *testing.T) {
	first, second := startService(t), startService(t)
	for step, slot := range map[unlock.Step]int{unlock.StepAssign: 1, unlock.StepRecoveryAssign: 2} {
		g := newGuest(t, 1)
		g.kill(first, cut{step, 0, 0})
		out := g.enroll(second)
		assert.Contains(t, out, fmt.Sprintf("luksKillSlot %s %d", g.volumes[0], slot))
		v := header(t, g.volumes[0])
		assert.Len(t, v.Inventory().Keyslots, 4)
		require.Len(t, v.OwnTokens(), 2)
	}
}

// The configuration of another machine, such as a copied disk's, is no hindrance.
func TestEnrolmentReplacesTheMachine(t *testing.T) {
	s, g := startService(t), newGuest(t, 1)
	c, err := unlock.LoadConfig(g.config())
	require.NoError(t, err)
	c.Machine = strings.Repeat("0", 64)
	require.NoError(t, c.Write(g.config()))
	g.enroll(s)
	c, err = unlock.LoadConfig(g.config())
	require.NoError(t, err)
	assert.Equal(t, g.machine(), c.Machine)
}

func TestEnrolmentIsRepeatedUntilTheApprovalOnly(t *testing.T) {
	s, g := startService(t), newGuest(t, 2)
	g.enroll(s)
	first := header(t, g.volumes[0]).OwnTokens()
	g.enroll(s)
	g.requireEnrolled()
	assert.Equal(t, first, header(t, g.volumes[0]).OwnTokens(), "the same secret in the same slot")
	s.approve(t, g.machine())
	before := g.headers()
	out := g.fails(unlock.ExitRefused, passphrase, g.enrollArgs(s)...)
	assert.Contains(t, out, "KW-1213")
	assert.True(t, bytes.Equal(before, g.headers()))
}

func TestTwoEnrolmentsAtOnce(t *testing.T) {
	s, g := startService(t), newGuest(t, 1)
	require.NoError(t, os.MkdirAll(g.path("run"), 0o700))
	f, err := os.Create(filepath.Join(g.path("run"), "enroll.lock"))
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, syscall.Flock(int(f.Fd()), syscall.LOCK_EX))
	assert.Contains(t, g.fails(unlock.ExitFailed, passphrase, g.enrollArgs(s)...), "another keywright-unlock is changing the volumes of this machine")
}

// A secret of ours is no passphrase: it would be killed with its keyslot.
func TestOurOwnSecretIsNoPassphrase(t *testing.T) {
	s, g := startService(t), newGuest(t, 1)
	g.enroll(s)
	s.approve(t, g.machine())
	g.boot("ovmf-uki")
	r := g.bootHere(s)
	require.NoError(t, r.err)
	assert.Contains(t, g.fails(unlock.ExitFailed, string(r.keys[0]), g.enrollArgs(s)...), "the passphrase opens no keyslot")
}
