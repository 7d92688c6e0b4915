//go:build integration

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/unlock"
)

// useKey runs a key command of a running system, and returns its standard output
// and error apart.
func (g *guest) useKey(s *service, in, operation string, more ...string) (out, told string, code int) {
	g.t.Helper()
	var stdout, stderr bytes.Buffer
	h := g.hostOfTest(&stderr, new(recorder))
	h.stdin, h.stdout = strings.NewReader(in), &stdout
	args := []string{"key", operation, "--config", g.bootConfig([]string{s.url}, s.pin())}
	code = g.runHere(h, append(args, more...)...)
	return stdout.String(), stderr.String(), code
}

func TestApplicationsUseKeys(t *testing.T) {
	s := startService(t)
	g := unlocked(t, s, 1)
	wrapped, told, code := g.useKey(s, "hunter2\n", "wrap", "--context", "postgres")
	require.Equal(t, unlock.ExitDone, code, told)
	assert.Regexp(t, `^kw1\.default\.1\.[A-Za-z0-9_-]+\n$`, wrapped)
	plain, told, code := g.useKey(s, wrapped, "unwrap", "--context", "postgres")
	require.Equal(t, unlock.ExitDone, code, told)
	assert.Equal(t, "hunter2\n", plain)
	same, told, code := g.useKey(s, wrapped, "rewrap", "--context", "postgres")
	require.Equal(t, unlock.ExitDone, code, told)
	assert.Equal(t, wrapped, same)

	datakey, told, code := g.useKey(s, "", "data-key", "--size", "64", "--key-output", g.path("datakey"))
	require.Equal(t, unlock.ExitDone, code, told)
	made, err := os.ReadFile(g.path("datakey"))
	require.NoError(t, err)
	assert.Len(t, made, 64)
	info, err := os.Stat(g.path("datakey"))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	opened, told, code := g.useKey(s, datakey, "unwrap")
	require.Equal(t, unlock.ExitDone, code, told)
	assert.Equal(t, string(made), opened)

	lines, told, code := g.useKey(s, `{"reference":"a","wrapped":"`+strings.TrimSpace(datakey)+`"}`+"\n"+
		`{"reference":"b","wrapped":"`+strings.TrimSpace(wrapped)+`"}`+"\n", "unwrap", "--batch")
	assert.Equal(t, unlock.ExitInPart, code, told)
	assert.Regexp(t, `^{"reference":"a","plaintext":"[^"]+"}\n{"reference":"b","code":"ciphertext",.*}\n$`, lines)
	assert.Contains(t, told, "1 of 2 items failed")
}

// TestAttack21CiphertextOnAnotherMachine takes what one machine wrapped to another
// one of the same group, and to the service's operators.
func TestAttack21CiphertextOnAnotherMachine(t *testing.T) {
	s := startService(t)
	one, other := unlocked(t, s, 1), unlocked(t, s, 1)
	wrapped, told, code := one.useKey(s, "hunter2", "wrap")
	require.Equal(t, unlock.ExitDone, code, told)
	out, told, code := other.useKey(s, wrapped, "unwrap")
	assert.Equal(t, unlock.ExitRefused, code)
	assert.Contains(t, told, "KW-1219 ciphertext")
	assert.Empty(t, out)
	out, told, code = other.useKey(s, wrapped, "rewrap", "--output", other.path("rewrapped"))
	assert.Equal(t, unlock.ExitRefused, code, told)
	assert.Empty(t, out)
	assert.NoFileExists(t, other.path("rewrapped"))
	_, told, code = one.useKey(s, wrapped, "unwrap", "--keyring", "system")
	assert.Equal(t, unlock.ExitRefused, code)
	assert.Contains(t, told, "KW-1218 keyring")
}

// A machine that was revoked, or has no keys of this boot, opens nothing more.
func TestKeysEndWithTheMachine(t *testing.T) {
	s := startService(t)
	g := unlocked(t, s, 1)
	wrapped, told, code := g.useKey(s, "hunter2", "wrap")
	require.Equal(t, unlock.ExitDone, code, told)
	s.revoke(t, g.machine())
	_, told, code = g.useKey(s, wrapped, "unwrap")
	assert.Equal(t, unlock.ExitRefused, code)
	assert.Contains(t, told, "KW-1208 machine_revoked")

	again := newGuest(t, 1)
	again.enroll(s)
	s.approve(t, again.machine())
	again.boot("ovmf-uki")
	_, told, code = again.useKey(s, "", "data-key", "--key-output", again.path("k"))
	assert.Equal(t, unlock.ExitRefused, code)
	assert.Contains(t, told, "KW-1217 not_released")
	assert.NoFileExists(t, again.path("k"))
}

// An answer, or a recipient, of somebody on the way is not believed, and what was
// to be wrapped does not go to them.
func TestKeysOfAnotherServiceAreNotBelieved(t *testing.T) {
	s := startService(t)
	g := unlocked(t, s, 1)
	for name, change := range map[string]func(path string, body []byte) []byte{
		"recipient": func(path string, body []byte) []byte {
			if path != api.PathGuestKeyChallenge {
				return body
			}
			var c api.KeyChallenge
			assert.NoError(t, json.Unmarshal(body, &c))
			thief, err := exchange.NewRecipient()
			assert.NoError(t, err)
			c.Recipient = thief.PublicKey()
			return encoded(t, c)
		},
		"answer": func(path string, body []byte) []byte {
			if path != api.PathGuestKeys {
				return body
			}
			var a api.KeyAnswer
			assert.NoError(t, json.Unmarshal(body, &a))
			a.Sealed.Response[0]++
			return encoded(t, a)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			h := g.hostOfTest(&stderr, new(recorder))
			h.stdin, h.stdout = strings.NewReader("hunter2"), &stdout
			proxy := startProxy(t, s.url, change)
			code := g.runHere(h, "key", "wrap", "--config", g.bootConfig([]string{proxy}, s.pin()))
			assert.Equal(t, unlock.ExitFailed, code)
			assert.Contains(t, stderr.String(), "KW-1405")
			assert.Empty(t, stdout.String())
		})
	}
}

func encoded(t *testing.T, v any) []byte {
	t.Helper()
	text, err := api.Encode(v)
	assert.NoError(t, err)
	return text
}
