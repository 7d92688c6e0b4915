//go:build integration

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/pki"
	"keywright.dev/test/process"
	"keywright.dev/unlock"
)

// childInitrd is what stands in for the initramfs: a copy of the configuration that
// it holds.
const childInitrd = "KEYWRIGHT_UNLOCK_TEST_INITRD"

// makeInitrd makes it anew, whole or not at all, as initramfs-tools does.
func makeInitrd(initrd string) error {
	text, err := os.ReadFile(filepath.Join(filepath.Dir(initrd), "boot.toml"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(initrd+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(initrd+".new", initrd)
}

func (s *service) rotateIdentity(t *testing.T) (former, current string) {
	t.Helper()
	former = s.pin()
	_, err := s.RotateIdentity(t.Context(), operator())
	require.NoError(t, err)
	return former, s.pin()
}

func (s *service) retireIdentity(t *testing.T, key string) {
	t.Helper()
	_, err := s.RetireIdentity(t.Context(), operator(), key, 0, nil)
	require.NoError(t, err)
}

func (s *service) identityCensus(t *testing.T) *kms.IdentityCensus {
	t.Helper()
	census, err := s.IdentityCensus(t.Context())
	require.NoError(t, err)
	return census
}

// pinning returns a machine that runs with its keys, whose initramfs has a
// configuration of its own.
func pinning(t *testing.T, s *service) *guest {
	t.Helper()
	g := unlocked(t, s, 1)
	g.initrd = g.path("initrd")
	require.NoError(t, makeInitrd(g.initrd))
	return g
}

// restart boots with the configuration in the initramfs.
func (g *guest) restart() {
	g.t.Helper()
	g.boot("ovmf-uki")
	require.NoError(g.t, g.bootWith(g.initrd, new(recorder)).err)
}

func (g *guest) repinArgs() []string { return []string{"repin", "--config", g.path("boot.toml")} }

// repin runs the command as a process, and returns what it said.
func (g *guest) repin(more ...string) string {
	g.t.Helper()
	out, err := g.child(append(g.repinArgs(), more...)...).CombinedOutput()
	require.NoError(g.t, err, string(out))
	return string(out)
}

func (g *guest) pinned(path string) []string {
	g.t.Helper()
	c, err := unlock.LoadConfig(path)
	require.NoError(g.t, err)
	return c.ServiceKeys
}

// Wherever it is killed, the machine boots, and the next run ends what was begun: with
// the next key beside the one before, and then with that one gone.
func TestRepinKilledAtEachStepIsFollowedByOneThatFinishes(t *testing.T) {
	s := startService(t)
	for _, step := range unlock.RepinSteps() {
		t.Run(string(step), func(t *testing.T) {
			g := pinning(t, s)
			former, current := s.rotateIdentity(t)
			for _, want := range [][]string{{current, former}, {current}} {
				require.NoError(t, process.KillAtStep(g.child(g.repinArgs()...), string(step), 0, 0))
				g.restart()
				g.repin()
				assert.Equal(t, want, g.pinned(g.path("boot.toml")))
				assert.Equal(t, want, g.pinned(g.initrd))
				assert.NoFileExists(t, g.path("repinning"))
				g.restart()
				census := s.identityCensus(t)
				assert.Zero(t, census.Lacking)
				if len(want) > 1 {
					assert.EqualValues(t, 1, census.Others)
					s.retireIdentity(t, former)
				}
			}
			assert.Zero(t, s.identityCensus(t).Others)
			assert.Contains(t, g.repin(), "pins what the service wants it to")
			s.revoke(t, g.machine())
		})
	}
}

// The agent hears of another key, and has the unit take it over; it says so once.
func TestAgentHearsOfAnotherServiceKey(t *testing.T) {
	s := startService(t)
	g := pinning(t, s)
	s.rotateIdentity(t)
	cmd := g.child("agent", "--config", g.path("boot.toml"))
	said := new(process.Output)
	cmd.Stdout = said
	p, err := process.Start(cmd)
	require.NoError(t, err)
	t.Cleanup(p.Kill)
	a := &runningAgent{p, t, said}
	a.await("wants other service keys pinned")
	require.Eventually(t, func() bool { _, err := os.Stat(filepath.Join(g.path("run"), unlock.RepinFile)); return err == nil }, agentPatience, agentPoll)
	s.order(t, g.volumes[0], false)
	s.awaitNoOrders(t)
	g.repin("--hook")
	s.order(t, g.volumes[0], false)
	s.awaitNoOrders(t)
	a.end()
	assert.Equal(t, 1, strings.Count(said.String(), "wants other service keys"))
	g.restart()
	assert.Zero(t, s.identityCensus(t).Lacking)
}

// A configuration that a person wrote is that person's; so is a system that makes its
// initramfs by other tools.
func TestRepinLeavesToPeopleWhatIsTheirs(t *testing.T) {
	s := startService(t)
	g := pinning(t, s)
	_, current := s.rotateIdentity(t)
	path := g.path("boot.toml")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	_, own, _ := strings.Cut(string(text), "\n")
	require.NoError(t, os.WriteFile(path, []byte(own), 0o600))
	out, err := g.child(g.repinArgs()...).CombinedOutput()
	require.Error(t, err)
	assert.Contains(t, string(out), `service_keys = ["`+current)
	assert.NoFileExists(t, g.path("repinning"))
	assert.Contains(t, g.repin("--hook"), "W: keywright-unlock: this machine does not pin")

	require.NoError(t, os.WriteFile(path, text, 0o600))
	initrd := g.initrd
	g.initrd = ""
	assert.Contains(t, g.repin(), "make its initramfs, or its image, anew")
	g.initrd = initrd
	require.NoError(t, makeInitrd(initrd))
	g.restart()
	assert.Zero(t, s.identityCensus(t).Lacking)
	require.NoError(t, os.Remove(path))
	assert.Empty(t, g.repin("--hook"))
}

// Who stands between has a machine pin nothing: what is taken over is signed by what
// is pinned, over what was asked just now.
func TestAttack33ForgedServiceKeysAreNotPinned(t *testing.T) {
	s := startService(t)
	g := pinning(t, s)
	stranger := [][]byte{bytes.Repeat([]byte{9}, 32)}
	var old []byte
	for name, change := range map[string]func(body []byte, a api.ServiceKeysResponse) any{
		"another list":     func(_ []byte, a api.ServiceKeysResponse) any { a.Keys = append(stranger, a.Keys...); return a },
		"a shorter one":    func(_ []byte, a api.ServiceKeysResponse) any { a.Keys = a.Keys[:0]; return a },
		"of another nonce": func(body []byte, _ api.ServiceKeysResponse) any { return json.RawMessage(old) },
		"signed by a stranger": func(_ []byte, a api.ServiceKeysResponse) any {
			id, public, private, err := pki.MakeIdentity()
			require.NoError(t, err)
			defer private.Wipe()
			key, err := openIdentity(private)
			require.NoError(t, err)
			fingerprint, err := exchange.ParseFingerprint(id)
			require.NoError(t, err)
			a.Keys, a.ServiceKey = [][]byte{fingerprint[:]}, public
			a.Signature, err = exchange.SignServiceKeys(key, [32]byte{}, [][32]byte{fingerprint})
			require.NoError(t, err)
			return a
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := g.pinned(g.path("boot.toml"))
			proxy := startProxy(t, s.url, func(path string, body []byte) []byte {
				var a api.ServiceKeysResponse
				if path != api.PathServiceKeys || json.Unmarshal(body, &a) != nil {
					return body
				}
				if old == nil {
					old = bytes.Clone(body)
					if name == "of another nonce" {
						return body
					}
				}
				forged, err := json.Marshal(change(body, a))
				require.NoError(t, err)
				return forged
			})
			g.bootConfig([]string{proxy}, before...)
			if name == "of another nonce" {
				old = nil
				g.repin()
			}
			out, err := g.child(g.repinArgs()...).CombinedOutput()
			require.Error(t, err)
			assert.Contains(t, string(out), "KW-1405")
			assert.Equal(t, before, g.pinned(g.path("boot.toml")))
			assert.NoFileExists(t, g.path("repinning"))
		})
	}
}
