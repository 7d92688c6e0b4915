//go:build integration

package luks_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"keywright.dev/kms/secret"
	"keywright.dev/unlock/luks"
)

const (
	oursText     = "ours, a random secret"
	recoveryText = "a recovery key"
)

// reencryptable is a volume of 64 MiB in a file, which its device is.
func reencryptable(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "volume")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.NoError(t, os.Truncate(path, 80<<20))
	mustRun(t, oursText, "luksFormat", "-q", "--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", "-", path)
	require.NoError(t, luks.Cryptsetup{}.AddKeyslot(t.Context(), path, text(oursText), text(recoveryText), 1))
	return path
}

func text(s string) secret.Bytes { return secret.Copy([]byte(s)) }

func mustRun(t *testing.T, stdin string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "cryptsetup", args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
}

func readHeader(t *testing.T, path string) *luks.Header {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	h, err := luks.ReadDevice(f)
	require.NoError(t, err)
	return h
}

func digestOf(t *testing.T, i luks.Identity) [32]byte {
	t.Helper()
	d, err := i.Digest()
	require.NoError(t, err)
	return d
}

// Whatever state a reencryption is cut in, its header says what the volume was and
// what it becomes, in the words of the headers before and after.
func TestUnderReencryption(t *testing.T) {
	path := reencryptable(t)
	c := luks.Cryptsetup{}
	before, err := readHeader(t, path).Validate()
	require.NoError(t, err)
	_, err = readHeader(t, path).ValidateUnder()
	requireRefusal(t, err, luks.CodeRequirements)
	require.NoError(t, c.BeginReencryption(t.Context(), path, []luks.SlotKey{{Slot: 0, Key: text(oursText)}, {Slot: 1, Key: text(recoveryText)}}))

	var last *luks.Under
	states := watch(t, path, func() {
		require.NoError(t, c.ResumeReencryption(t.Context(), path, text(oursText), luks.Resumption{Closed: true}))
	})
	after, err := readHeader(t, path).Validate()
	require.NoError(t, err)
	require.NotEmpty(t, states)
	for _, h := range states {
		under, err := h.ValidateUnder()
		require.NoError(t, err)
		require.Equal(t, digestOf(t, before.Identity()), digestOf(t, under.From()))
		require.Equal(t, digestOf(t, after.Identity()), digestOf(t, under.To()))
		last = under
	}
	_, err = last.Ended()
	if !last.All() {
		require.Error(t, err)
	}
}

// watch returns the headers under reencryption that a file had while something ran.
func watch(t *testing.T, path string, do func()) (states []*luks.Header) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); do() }()
	seen := make(map[uint64]bool)
	for {
		select {
		case <-done:
			return states
		default:
		}
		f, err := os.Open(path)
		require.NoError(t, err)
		h, err := luks.ReadDevice(f)
		if err == nil && h.Reencrypting() && !seen[h.SequenceID] {
			seen[h.SequenceID] = true
			states = append(states, h)
		}
		require.NoError(t, f.Close())
	}
}

// cuts bounds how often a moment of a few milliseconds is waited for.
const cuts = 20

// cutAtTheEnd returns a volume whose reencryption was killed after the last of the data,
// before the header.
func cutAtTheEnd(t *testing.T) (path string, under *luks.Under) {
	t.Helper()
	for range cuts {
		path = reencryptable(t)
		require.NoError(t, luks.Cryptsetup{}.BeginReencryption(t.Context(), path, []luks.SlotKey{{Slot: 0, Key: text(oursText)}, {Slot: 1, Key: text(recoveryText)}}))
		if under = killAtTheEnd(t, path); under != nil {
			return path, under
		}
	}
	require.FailNow(t, "no reencryption could be killed between its last byte and its header")
	return "", nil
}

// killAtTheEnd returns nil where cryptsetup was too quick.
func killAtTheEnd(t *testing.T, path string) *luks.Under {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "cryptsetup", "reencrypt", "-q", "--resume-only", "--force-offline-reencrypt", "--hotzone-size", "8M", "--key-file", "-", path)
	cmd.Stdin = strings.NewReader(oursText)
	require.NoError(t, cmd.Start())
	for {
		h := readHeader(t, path)
		if !h.Reencrypting() {
			require.NoError(t, cmd.Wait())
			return nil
		}
		under, err := h.ValidateUnder()
		require.NoError(t, err)
		if under.All() && under.Orphaned() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			break
		}
	}
	h := readHeader(t, path)
	if !h.Reencrypting() {
		return nil
	}
	under, err := h.ValidateUnder()
	require.NoError(t, err)
	return under
}

// A reencryption that was cut after its last byte, and before the header said so, is
// one that cryptsetup neither opens nor goes on with: its header is ended here.
func TestReencryptionCutBeforeItsHeader(t *testing.T) {
	path, under := cutAtTheEnd(t)
	c := luks.Cryptsetup{}
	require.Error(t, c.ResumeReencryption(t.Context(), path, text(oursText), luks.Resumption{Closed: true}), "else it need not be ended here")
	ended, err := under.Ended()
	require.NoError(t, err)
	require.Equal(t, digestOf(t, under.To()), digestOf(t, ended.Identity()))
	slot := ended.Inventory().Keyslots[0].ID
	_, err = ended.Unseal(slot, text(oursText))
	require.NoError(t, err, "a boot opens it")

	require.NoError(t, c.EndReencryption(t.Context(), path, ended))
	plain, err := readHeader(t, path).Validate()
	require.NoError(t, err)
	require.Equal(t, luks.CopiesBoth, plain.Header().Copies)
	require.Equal(t, digestOf(t, under.To()), digestOf(t, plain.Identity()))
	for _, s := range plain.Inventory().Keyslots {
		key := map[bool]string{true: oursText, false: recoveryText}[s.ID == slot]
		require.NoError(t, c.TestKey(t.Context(), path, s.ID, text(key)))
	}
}
