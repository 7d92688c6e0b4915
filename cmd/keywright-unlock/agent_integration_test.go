//go:build integration

package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/test/process"
	"keywright.dev/unlock"
	"keywright.dev/unlock/luks"
)

const (
	// agentPatience is how long a test waits for what an agent does.
	agentPatience = 2 * time.Minute
	agentPoll     = 50 * time.Millisecond
)

// order has the volume on a path rekeyed.
func (s *service) order(t *testing.T, path string, atBoot bool) {
	t.Helper()
	_, err := s.OrderRekey(t.Context(), operator(), s.volumeOn(t, path), "a test", atBoot)
	require.NoError(t, err)
}

func (s *service) withdraw(t *testing.T, path string) {
	t.Helper()
	_, err := s.WithdrawRekey(t.Context(), operator(), s.volumeOn(t, path), "a test")
	require.NoError(t, err)
}

func (s *service) volumeOn(t *testing.T, path string) *kms.Volume {
	t.Helper()
	volumes, err := s.store.Volumes(t.Context(), "", "", 100)
	require.NoError(t, err)
	i := slices.IndexFunc(volumes, func(v kms.Volume) bool { return v.UUID == header(t, path).Header().UUID })
	require.GreaterOrEqual(t, i, 0)
	return &volumes[i]
}

func (s *service) orders(t *testing.T) []kms.Order {
	t.Helper()
	orders, err := s.store.Orders(t.Context(), "", 10)
	require.NoError(t, err)
	return orders
}

// awaitNoOrders waits until everything that was ordered is done.
func (s *service) awaitNoOrders(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool { return len(s.orders(t)) == 0 }, agentPatience, agentPoll)
}

// requireRekeyed holds that a version is the current one at the service and the
// only one in the header, that those before are kept, and that nothing is left.
func (s *service) requireRekeyed(t *testing.T, path string, version uint32) {
	t.Helper()
	require.Empty(t, s.orders(t))
	volume := s.volumeOn(t, path)
	statuses := make(map[uint32]kms.SecretStatus)
	require.NoError(t, s.store.Transact(t.Context(), kms.Key{Machine: volume.Machine}, func(state kms.State) (kms.Outcome, error) {
		for _, row := range state.Secrets {
			if row.Volume == volume.ID && row.Purpose == kms.PurposeKeyslot {
				statuses[row.Version] = row.Status
			}
		}
		return kms.Outcome{}, nil
	}))
	want := map[uint32]kms.SecretStatus{version: kms.SecretCurrent}
	for older := uint32(1); older < version; older++ {
		want[older] = kms.SecretRestoreOnly
	}
	require.Equal(t, want, statuses)
	require.Equal(t, []uint32{version}, versionsOn(t, path))
	require.Len(t, header(t, path).Inventory().Keyslots, 3, "no orphan keyslot")
	require.ElementsMatch(t, []int{0, 2, slices.Max(s.slots(t, volume.ID))}, s.slots(t, volume.ID))
	require.False(t, volume.Foreign)
	cryptsetup(t, passphrase, "open", "--test-passphrase", "--key-slot", "0", "--key-file", "-", path)
}

// versionsOn returns the versions of the secret that the tokens of a header name
// which have a keyslot.
func versionsOn(t *testing.T, path string) (versions []uint32) {
	t.Helper()
	for _, token := range header(t, path).OwnTokens() {
		if token.Purpose == luks.PurposeBoot && len(token.Keyslots) > 0 {
			versions = append(versions, token.Version)
		}
	}
	slices.Sort(versions)
	return versions
}

// runningAgent is the agent as a process of its own.
type runningAgent struct {
	*process.Process
	t    *testing.T
	said *process.Output
}

// startAgent starts an agent that waits at servers.
func (g *guest) startAgent(servers []string, pins ...string) *runningAgent {
	g.t.Helper()
	said := new(process.Output)
	cmd := g.child("agent", "--config", g.bootConfig(servers, pins...))
	cmd.Stdout = said
	p, err := process.Start(cmd)
	require.NoError(g.t, err)
	g.t.Cleanup(func() {
		p.Kill()
		if g.t.Failed() {
			g.t.Log(said.String(), p.LastWords())
		}
	})
	return &runningAgent{p, g.t, said}
}

// await waits until the agent said something.
func (a *runningAgent) await(text string) {
	a.t.Helper()
	require.Eventually(a.t, func() bool { return strings.Contains(a.said.String(), text) }, agentPatience, agentPoll, "it does not say %q", text)
}

// end tells the agent to, which it does without a fault.
func (a *runningAgent) end() {
	a.t.Helper()
	a.Stop(agentPatience)
	require.NoError(a.t, a.Err(), a.said.String()+a.LastWords())
	assert.Contains(a.t, a.said.String(), "told to end")
}

// An order reaches a machine that waits, each of whose volumes is rekeyed in turn;
// so are later ones.
func TestAgentRekeysWhileTheMachineRuns(t *testing.T) {
	s := startService(t)
	g := unlocked(t, s, 2)
	a := g.startAgent([]string{s.url}, s.pin())
	for version := uint32(2); version < 4; version++ {
		s.order(t, g.volumes[0], false)
		s.order(t, g.volumes[1], false)
		s.awaitNoOrders(t)
		for _, path := range g.volumes {
			s.requireRekeyed(t, path, version)
		}
	}
	a.end()
	g.boot("ovmf-uki")
	require.NoError(t, g.bootHere(s).err)
}

// What is for a boot alone is left to it, and the boot does it by itself.
func TestRekeyAtBoot(t *testing.T) {
	s := startService(t)
	g := unlocked(t, s, 2)
	s.order(t, g.volumes[1], true)
	a := g.startAgent([]string{s.url}, s.pin())
	s.order(t, g.volumes[0], false)
	require.Eventually(t, func() bool { return len(s.orders(t)) == 1 }, agentPatience, agentPoll)
	a.end()
	assert.Equal(t, []uint32{1}, versionsOn(t, g.volumes[1]))

	g.boot("ovmf-uki")
	r := g.bootHere(s)
	require.NoError(t, r.err)
	assert.Equal(t, []string{"open volume0", "open volume1"}, r.events)
	assert.Regexp(t, `(?s)opened .*volume0 .*opened .*volume1 .*keywright: rekeyed .*volume1\n$`, r.lines)
	s.requireRekeyed(t, g.volumes[0], 2)
	s.requireRekeyed(t, g.volumes[1], 2)
	for _, path := range g.volumes {
		assert.Equal(t, header(t, path).Length(), s.volumeOn(t, path).Size)
	}
}

// A rekey that cannot be done at boot costs the boot a line.
func TestRekeyAtBootNeverHarmsTheBoot(t *testing.T) {
	s := startService(t)
	g := unlocked(t, s, 1)
	s.order(t, g.volumes[0], true)
	t.Setenv("PATH", g.path("nowhere"))
	g.boot("ovmf-uki")
	r := g.bootHere(s)
	require.NoError(t, r.err)
	assert.Equal(t, []string{"open volume0"}, r.events)
	assert.Regexp(t, `\nkeywright KW-1400 guest: left for later: rekeying .*volume0: adding a keyslot \(step check-secret\)`, r.lines)
	assert.Equal(t, 1, s.orders(t)[0].Faults)
	assert.Contains(t, s.orders(t)[0].Fault, "executable file not found")
}

// at is a place in a rekey: before a step, counted from 0 among those of its name.
type at struct {
	step unlock.Step
	nth  int
}

func rekeyCuts() (list []at) {
	seen := make(map[unlock.Step]int)
	for _, step := range unlock.RekeyOrderSteps() {
		list = append(list, at{step, seen[step]})
		seen[step]++
	}
	return list
}

// cutAgent kills an agent, with what it runs, where the cut is.
func (g *guest) cutAgent(s *service, c at) {
	g.t.Helper()
	cmd := g.child("agent", "--config", g.bootConfig([]string{s.url}, s.pin()))
	require.NoError(g.t, process.KillAtStep(cmd, string(c.step), c.nth, 0))
}

// rekeysOfOne is how many cut rekeys a machine's rate leaves room for.
const rekeysOfOne = 4

// Wherever an agent is killed, the next one finishes.
func TestAgentKilledAtEachStepIsFollowedByOneThatFinishes(t *testing.T) {
	for some := range slices.Chunk(rekeyCuts(), rekeysOfOne) {
		t.Run(fmt.Sprintf("%s-%d", some[0].step, some[0].nth), func(t *testing.T) {
			t.Parallel()
			s := startService(t)
			g := unlocked(t, s, 1)
			for i, c := range some {
				s.order(t, g.volumes[0], false)
				g.cutAgent(s, c)
				a := g.startAgent([]string{s.url}, s.pin())
				s.awaitNoOrders(t)
				a.end()
				s.requireRekeyed(t, g.volumes[0], uint32(i)+2)
			}
		})
	}
}

// So does the boot that follows, whose release opens the volume and goes on.
func TestAgentKilledIsFollowedByABootThatFinishes(t *testing.T) {
	for _, c := range []at{
		{unlock.StepAskRekey, 0}, {unlock.StepKeyslot, 0}, {unlock.StepTest, 0}, {unlock.StepReportKeyslot, 0},
		{unlock.StepKillOthers, 0}, {unlock.StepForgetOthers, 0}, {unlock.StepReportDone, 0},
	} {
		t.Run(string(c.step), func(t *testing.T) {
			t.Parallel()
			s := startService(t)
			g := unlocked(t, s, 1)
			s.order(t, g.volumes[0], false)
			g.cutAgent(s, c)
			g.boot("ovmf-uki")
			r := g.bootHere(s)
			require.NoError(t, r.err)
			require.Equal(t, []string{"open volume0"}, r.events)
			s.requireRekeyed(t, g.volumes[0], 2)
		})
	}
}

// An agent waits through a restart of the server, and is reached again.
func TestAgentSurvivesARestartOfTheServer(t *testing.T) {
	s := startService(t)
	g := unlocked(t, s, 1)
	a := g.startAgent([]string{s.url}, s.pin())
	s.stop()
	a.await("waiting for orders: KW-1501")
	address := strings.TrimPrefix(s.url, "https://")
	s.listen(t, address)
	s.order(t, g.volumes[0], false)
	s.awaitNoOrders(t)
	a.end()
	assert.Contains(t, a.said.String(), address+" answers again")
	s.requireRekeyed(t, g.volumes[0], 2)
}

// Where the first server of several is gone, the next one is waited at.
func TestAgentTurnsToTheNextServer(t *testing.T) {
	s := startService(t)
	g := unlocked(t, s, 1)
	s.order(t, g.volumes[0], false)
	a := g.startAgent([]string{"https://127.0.0.1:1", s.url}, s.pin())
	s.awaitNoOrders(t)
	a.end()
	s.requireRekeyed(t, g.volumes[0], 2)
}

// A machine that the service does not let go on says so, and waits.
func TestAgentOfAMachineThatDoesNotRunWithItsKeys(t *testing.T) {
	s := startService(t)
	g := unlocked(t, s, 1)
	s.order(t, g.volumes[0], false)
	g.boot("ovmf-uki")
	assert.Equal(t, unlock.ExitDone, g.runHere(g.hostOfTest(new(bytes.Buffer), new(recorder)), "close", "--config", g.path("boot.toml")))
	a := g.startAgent([]string{s.url}, s.pin())
	a.await("KW-1217 not_released")
	a.await("trying again in")
	a.end()
	assert.Equal(t, []uint32{1}, versionsOn(t, g.volumes[0]))

	var out bytes.Buffer
	h := g.hostOfTest(&out, new(recorder))
	assert.Equal(t, unlock.ExitFailed, g.runHere(h, "agent", "--config", g.path("none.toml")))
	assert.Contains(t, out.String(), "this machine is not enrolled")
	assert.Equal(t, unlock.ExitUsage, g.runHere(h, "agent", "--nothing"))
}
