package rotate

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
)

const (
	volumeA = "0000000000000000000000000000000a"
	volumeB = "0000000000000000000000000000000b"
)

// describe writes a chain's steps as lines of text, with what they come after.
func describe(c *Chain) string {
	var lines []string
	for _, s := range c.Steps {
		line := s.String()
		if s.AtBoot {
			line += " at boot"
		}
		if s.Away {
			line += " when it is back"
		}
		for _, a := range s.After {
			line += " after " + a.String()
		}
		lines = append(lines, strings.NewReplacer(volumeA, "a", volumeB, "b").Replace(line))
	}
	return strings.Join(lines, "\n")
}

// leaked are two volumes: a of web, and b of db, where more is at stake.
func leaked(t *testing.T, made time.Time) (State, *Policy) {
	t.Helper()
	p, err := Parse([]byte("[[rule]]\nname = \"db\"\ngroups = [\"db\"]\npriority = 90\n"))
	require.NoError(t, err)
	under := func(n uint32, first, last uint32) Secret {
		return Secret{Version: n, Created: made.Add(time.Duration(n) * day), AtBoot: true, Wrapped: []Versions{{"prod", first, last}}}
	}
	a := Volume{ID: volumeA, Machine: "m-web", Name: "web-1", Group: "web", Keyring: "prod", Created: made, Connected: true, Secret: under(2, 2, 2)}
	a.RestoreOnly = []Retained{{under(1, 1, 2), made.Add(2 * day)}}
	a.Wrapped = []Versions{{"prod", 1, 2}}
	b := Volume{ID: volumeB, Machine: "m-db", Name: "db-1", Group: "db", Keyring: "prod", Created: made, Bytes: 1 << 30, Secret: under(1, 1, 2), Recovery: under(1, 1, 2)}
	b.Wrapped = []Versions{{"prod", 1, 2}}
	k := kms.Keyring{Name: "prod", Current: 2, Versions: []kms.KeyringVersion{
		{Keyring: "prod", Version: 1, Status: kms.KeyringDisabled, Created: made},
		{Keyring: "prod", Version: 2, Status: kms.KeyringEnabled, Created: made.Add(2 * day)},
	}, Dependents: []kms.Dependents{{Keyring: "prod", Version: 2, Kind: kms.DependentSecret, Count: 4}}}
	return State{Keyrings: []kms.Keyring{k}, Volumes: only(a, b), Speed: Speed{Roots: 1}}, p
}

func TestAttack18AChainBeginsWithAVersionThatIsNotOut(t *testing.T) {
	made := at(t, "2026-01-01T00:00:00Z")
	state, p := leaked(t, made)
	now := made.Add(30 * day)
	c, err := Compromised(state, p, now, Incident{What: Reference{KeyringOut, "prod", 2}, Since: now, Copied: true})
	require.NoError(t, err)
	const ready = " after rotate-keyring keyring/prod after disable-keyring-version keyring/prod@2"
	assert.Equal(t, strings.Join([]string{
		"rotate-keyring keyring/prod",
		"disable-keyring-version keyring/prod@2 after rotate-keyring keyring/prod",
		// The higher classification first.
		"rekey-volume volume/b when it is back" + ready,
		"destroy-secret volume/b@1 after rekey-volume volume/b",
		"reencrypt-volume volume/b after rekey-volume volume/b",
		// What is kept for restores goes at once.
		"destroy-secret volume/a@1",
		"rekey-volume volume/a" + ready,
		"destroy-secret volume/a@2 after rekey-volume volume/a",
		"reencrypt-volume volume/a after rekey-volume volume/a",
	}, "\n"), describe(c))
	assert.Contains(t, c.Lines, Line{DefaultRule, DestroyKeyringVersion, HoldCensus, 1, Cost{}, 0})
	assert.Equal(t, []Unopenable{
		{volumeObject(volumeB, 1), made.Add(day), time.Time{}},
		{volumeObject(volumeA, 1), made.Add(day), made.Add(2 * day)},
		{volumeObject(volumeA, 2), made.Add(2 * day), time.Time{}},
	}, c.Unopenable)
	assert.EqualValues(t, 3, c.UnopenableCount)
}

// A rewrap took volume b's secret from version 1 to 2; who has 1 and an old copy of the
// store has the secret still.
func TestAttack18RewrapIsNoWayOut(t *testing.T) {
	made := at(t, "2026-01-01T00:00:00Z")
	state, p := leaked(t, made)
	now := made.Add(30 * day)
	c, err := Compromised(state, p, now, Incident{What: Reference{KeyringOut, "prod", 1}, Since: now})
	require.NoError(t, err)
	assert.Equal(t, strings.Join([]string{
		"destroy-keyring-version keyring/prod@1",
		"rekey-volume volume/b when it is back",
		"destroy-secret volume/b@1 after rekey-volume volume/b",
		"destroy-secret volume/a@1",
	}, "\n"), describe(c))
	assert.Equal(t, kms.MinDestroyWait, c.Steps[0].Wait)
}

func TestAttack18MachineThatIsOutIsRekeyedInAnAttestedBootOnly(t *testing.T) {
	made := at(t, "2026-01-01T00:00:00Z")
	state, p := leaked(t, made)
	now := made.Add(30 * day)
	incident := Incident{What: Reference{MachineOut, "web-1", 0}, Since: now}
	c, err := Compromised(state, p, now, incident)
	require.NoError(t, err)
	assert.Equal(t, strings.Join([]string{
		"destroy-secret volume/a@1",
		"rekey-volume volume/a at boot",
		"destroy-secret volume/a@2 after rekey-volume volume/a",
		"reencrypt-volume volume/a after rekey-volume volume/a",
	}, "\n"), describe(c))

	// A new secret that it got while it ran is in the hands of whoever is root on it.
	for _, boot := range []bool{false, true} {
		v := Volume{ID: volumeA, Machine: "m-web", Name: "web-1", Group: "web", Connected: true, Reencrypted: now.Add(day)}
		v.Secret = Secret{Version: 3, Created: now.Add(day), AtBoot: boot}
		state.Volumes = only(v)
		c, err = Compromised(state, p, now.Add(2*day), incident)
		require.NoError(t, err)
		assert.Equal(t, boot, len(c.Steps) == 0, describe(c))
	}
}

func TestAHeaderThatIsOutHasItsVolumeKeyReplaced(t *testing.T) {
	made := at(t, "2026-01-01T00:00:00Z")
	state, p := leaked(t, made)
	now := made.Add(30 * day)
	for _, kind := range []ReferenceKind{HeaderOut, VolumeOut} {
		c, err := Compromised(state, p, now, Incident{What: Reference{kind, volumeA, 0}, Since: now})
		require.NoError(t, err)
		assert.Equal(t, strings.Join([]string{
			"destroy-secret volume/a@1",
			"rekey-volume volume/a",
			"destroy-secret volume/a@2 after rekey-volume volume/a",
			"reencrypt-volume volume/a after rekey-volume volume/a",
		}, "\n"), describe(c))
	}
}

func TestAVolumeWithAnOpenOrderIsLookedAtAgain(t *testing.T) {
	made := at(t, "2026-01-01T00:00:00Z")
	state, p := leaked(t, made)
	var list []Volume
	for v := range state.Volumes {
		v.Order = Order{Kind: ReencryptVolume}
		list = append(list, v)
	}
	state.Volumes = only(list...)
	now := made.Add(30 * day)
	c, err := Compromised(state, p, now, Incident{What: Reference{VolumeOut, volumeA, 0}, Since: now})
	require.NoError(t, err)
	assert.Equal(t, "destroy-secret volume/a@1", describe(c))
	assert.Equal(t, []Line{
		{DefaultRule, DestroySecret, HoldNone, 1, Cost{}, 0},
		{DefaultRule, DestroySecret, HoldOrder, 1, Cost{}, 0},
		{DefaultRule, ReencryptVolume, HoldOrder, 1, Cost{Guests: 1, Unsized: 1}, 0},
		{DefaultRule, RekeyVolume, HoldOrder, 1, Cost{Guests: 1}, 0},
	}, c.Lines)
}

func TestWhatAChainCannotMendIsSaid(t *testing.T) {
	made := at(t, "2026-01-01T00:00:00Z")
	k := kms.Keyring{Name: "system", Current: 1, Versions: []kms.KeyringVersion{{Keyring: "system", Version: 1, Status: kms.KeyringEnabled, Created: made}}}
	k.Dependents = []kms.Dependents{
		{Keyring: "system", Version: 1, Kind: kms.DependentServiceKey, Purpose: "identity", Count: 2},
		{Keyring: "system", Version: 1, Kind: kms.DependentOutside, Count: 1},
	}
	c, err := Compromised(State{Keyrings: []kms.Keyring{k}, Volumes: only()}, Default(), made, Incident{What: Reference{KeyringOut, "system", 1}, Since: made})
	require.NoError(t, err)
	assert.Equal(t, []string{
		"keyring/system@1 wraps 2 of the service's own keys (identity): they are out and are to be replaced, not rewrapped",
		"keyring/system@1 wrapped for the key API: who has such ciphertexts is to replace what is in them",
	}, c.Beyond)
}

func TestWhatIsNotThereCannotBeOut(t *testing.T) {
	made := at(t, "2026-01-01T00:00:00Z")
	state, p := leaked(t, made)
	for _, text := range []string{"keyring/prod@3", "keyring/dev@1", "machine/web-2", "volume/" + strings.Repeat("c", 32)} {
		what, err := ParseReference(text)
		require.NoError(t, err)
		_, err = Compromised(state, p, made, Incident{What: what, Since: made})
		assert.ErrorContains(t, err, fmt.Sprintf("planning what to do about %s: there is no such", text))
	}
}

// A keyring version and a machine are out: one order, and it is for a boot alone.
func TestAttack18SeveralIncidentsHaveOneChain(t *testing.T) {
	made := at(t, "2026-01-01T00:00:00Z")
	state, p := leaked(t, made)
	now := made.Add(30 * day)
	c, err := Compromised(
		state, p, now,
		Incident{What: Reference{KeyringOut, "prod", 2}, Since: now},
		Incident{What: Reference{MachineOut, "web-1", 0}, Since: now},
		Incident{What: Reference{KeyringOut, "prod", 1}, Since: now},
	)
	require.NoError(t, err)
	const ready = " after rotate-keyring keyring/prod after disable-keyring-version keyring/prod@2"
	assert.Equal(t, strings.Join([]string{
		"rotate-keyring keyring/prod",
		"disable-keyring-version keyring/prod@2 after rotate-keyring keyring/prod",
		"destroy-keyring-version keyring/prod@1",
		"rekey-volume volume/b when it is back" + ready,
		"destroy-secret volume/b@1 after rekey-volume volume/b",
		"destroy-secret volume/a@1",
		"rekey-volume volume/a at boot" + ready,
		"destroy-secret volume/a@2 after rekey-volume volume/a",
		"reencrypt-volume volume/a after rekey-volume volume/a",
	}, "\n"), describe(c))
	assert.Equal(t, []string{"the recovery keys of 1 volumes are out, and no rekey replaces them: keywright volume reencrypt makes others, or remove their keyslots at the machines"}, c.Beyond)

	_, err = Compromised(state, p, now, []Incident{{What: Reference{KeyringOut, "prod", 2}, Since: now}, {What: Reference{MachineOut, "gone", 0}, Since: now}}...)
	require.ErrorIs(t, err, kms.ErrNotFound)
}

// A reencryption makes a new recovery key, and hands it to the system that runs.
func TestRecoveryKeysThatAreReplacedAreLeftToNobody(t *testing.T) {
	made := at(t, "2026-01-01T00:00:00Z")
	state, p := leaked(t, made)
	now := made.Add(30 * day)
	for _, what := range []Reference{{MachineOut, "db-1", 0}, {HeaderOut, volumeB, 0}, {VolumeOut, volumeB, 0}} {
		incident := Incident{What: what, Since: now}
		c, err := Compromised(state, p, now, incident)
		require.NoError(t, err)
		assert.Contains(t, describe(c), "reencrypt-volume volume/b", what)
		assert.Empty(t, c.Beyond, what)

		var healed Volume
		for v, err := range state.Volumes {
			require.NoError(t, err)
			healed = v
		}
		require.Equal(t, volumeB, healed.ID)
		healed.Reencrypted, healed.Recovery = now.Add(time.Hour), Secret{Version: 2, Created: now.Add(time.Hour)}
		healed.Secret.Version, healed.Secret.Created = 2, now.Add(time.Hour)
		done := state
		done.Volumes = only(healed)
		c, err = Compromised(done, p, now.Add(day), incident)
		require.NoError(t, err)
		assert.Empty(t, describe(c), what)
		assert.Empty(t, c.Beyond, what)
	}
}

// Orders that are open leave a plan's room to volumes that have none.
func TestAChainGoesOnBehindOpenOrders(t *testing.T) {
	made := at(t, "2024-01-01T00:00:00Z")
	var list []Volume
	for v := range someVolumes(maxPlan + 10) {
		if len(list) < maxPlan {
			v.Order = Order{Kind: RekeyVolume}
		}
		list = append(list, v)
	}
	c, err := Compromised(State{Keyrings: someKeyrings(made, 1), Volumes: only(list...)}, Default(), made.Add(day), Incident{What: Reference{KeyringOut, "default", 1}, Since: made.Add(day)})
	require.NoError(t, err)
	assert.Contains(t, c.Lines, Line{DefaultRule, RekeyVolume, HoldNone, 10, Cost{Guests: 10}, 0})
}

func TestAChainIsBoundedAndCountsTheRest(t *testing.T) {
	made := at(t, "2024-01-01T00:00:00Z")
	state := State{Keyrings: someKeyrings(made, 2000), Volumes: someVolumes(2000)}
	c, err := Compromised(state, Default(), made.Add(day), Incident{What: Reference{KeyringOut, "default", 1}, Since: made.Add(day)})
	require.NoError(t, err)
	assert.Len(t, c.Steps, 2+2*maxPlan)
	assert.EqualValues(t, 2000, c.UnopenableCount)
	assert.Contains(t, c.Lines, Line{DefaultRule, RekeyVolume, HoldNone, maxPlan, Cost{Guests: maxPlan}, 0})
	assert.Contains(t, c.Lines, Line{DefaultRule, RekeyVolume, HoldPlan, 2000 - maxPlan, Cost{Guests: 2000 - maxPlan}, 0})
}
