package kms_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
	"keywright.dev/kms/audit"
	"keywright.dev/kms/exchange"
	"keywright.dev/test/sim"
)

// rotating is a fixture whose identity keys are stored.
func rotating(t *testing.T) *fixture {
	t.Helper()
	f := newFixture(t)
	f.rotates = true
	f.Service = f.service()
	return f
}

// rotateIdentity makes another identity key, and returns the one before and it.
func (f *fixture) rotateIdentity() (former, current [32]byte) {
	f.t.Helper()
	former = f.ServiceKey()
	f.clock.Advance(time.Minute)
	_, err := f.RotateIdentity(f.t.Context(), operator())
	require.NoError(f.t, err)
	require.NotEqual(f.t, former, f.ServiceKey())
	return former, f.ServiceKey()
}

// repin has a machine pin what the service tells it under the key that it knows.
func (f *fixture) repin(m *sim.Machine) {
	f.t.Helper()
	nonce := [32]byte{1}
	list, err := f.ServiceKeyList(m.ServiceKey[:], nonce[:], netip.Addr{})
	require.NoError(f.t, err)
	require.NoError(f.t, exchange.VerifyServiceKeys(m.ServiceKey, list.ServiceKey, nonce, list.Keys, list.Signature))
	m.ServiceKey, m.Pins = list.Keys[0], nil
	for _, k := range list.Keys {
		m.Pins = append(m.Pins, k[:])
	}
}

func (f *fixture) census() *kms.IdentityCensus {
	f.t.Helper()
	census, err := f.IdentityCensus(f.t.Context())
	require.NoError(f.t, err)
	return census
}

func (f *fixture) retireIdentity(key [32]byte, leave int, excused ...string) error {
	f.t.Helper()
	_, err := f.RetireIdentity(f.t.Context(), operator(), exchange.FormatFingerprint(key), leave, excused)
	return err
}

// The service answers with the key that a machine knows, until every machine knows
// the next one: only then the one before is retired.
func TestIdentityRotatesWhileMachinesBoot(t *testing.T) {
	f := rotating(t)
	one, other := f.booted("web-1"), f.booted("web-2")
	assert.Equal(t, &kms.IdentityCensus{
		Keys: []kms.IdentityKey{{exchange.FormatFingerprint(f.ServiceKey()), f.clock.Now(), 2}}, Machines: 2,
	}, f.census())
	former, current := f.rotateIdentity()
	_, err := f.RotateIdentity(t.Context(), operator())
	require.ErrorContains(t, err, "is not retired")
	f.unlock(one)
	census := f.census()
	assert.EqualValues(t, 2, census.Lacking)
	assert.ElementsMatch(t, []string{one.TPM.Machine(), other.TPM.Machine()}, census.First)

	f.repin(one)
	assert.EqualValues(t, 2, f.census().Lacking, "it has not shown so in a boot")
	f.unlock(one)
	census = f.census()
	assert.Equal(t, []string{other.TPM.Machine()}, census.First)
	assert.EqualValues(t, 1, census.Others)
	assert.Equal(t, []int64{1, 2}, []int64{census.Keys[0].Pinned, census.Keys[1].Pinned})
	f.unlock(other)

	require.ErrorContains(t, f.retireIdentity(current, 0), "it is the current one")
	require.ErrorContains(t, f.retireIdentity([32]byte{}, 0), "no service identity key")
	err = f.retireIdentity(former, 0)
	require.ErrorContains(t, err, "machine/"+other.TPM.Machine())
	assert.NotContains(t, err.Error(), one.TPM.Machine())
	f.repin(other)
	f.unlock(other)
	require.NoError(t, f.retireIdentity(former, 0))
	assert.Equal(t, kms.ActionRetireIdentity, f.latest(kms.ActionRetireIdentity).Action)
	require.Len(t, f.census().Keys, 1)
	assert.EqualValues(t, 2, f.census().Others, "both trust the retired key still")
	for _, m := range []*sim.Machine{one, other} {
		f.repin(m)
		require.Len(t, m.Pins, 1)
		f.unlock(m)
	}
	assert.Zero(t, f.census().Others)
	f.rotateIdentity()
}

// What rotates is stored: a service that starts anew answers with both keys.
func TestIdentityRotationOutlivesTheService(t *testing.T) {
	f := rotating(t)
	m := f.booted("web-17")
	former, current := f.rotateIdentity()
	identity, log := f.Identities, f.Log
	f.Service = f.service()
	assert.Equal(t, identity.Fingerprints(), f.Identities.Fingerprints())
	f.Log = log
	f.unlock(m)
	assert.Equal(t, former, m.ServiceKey)
	assert.Equal(t, current, f.ServiceKey())
}

// Who does not come back keeps nothing: revoked and excused machines do not count,
// and a person can leave others behind. They are named, and get no keys any more.
func TestIdentityRetiresWithoutWhoIsGone(t *testing.T) {
	f := rotating(t)
	revoked, excused, gone := f.booted("web-1"), f.booted("web-2"), f.booted("web-3")
	former, _ := f.rotateIdentity()
	_, _, err := f.RevokeMachine(t.Context(), operator(), "web-1", "sold")
	require.NoError(t, err)
	require.ErrorContains(t, f.retireIdentity(former, 0, excused.TPM.Machine()), gone.TPM.Machine())
	require.ErrorContains(t, f.retireIdentity(former, -1), "at most")
	dry := operator()
	dry.DryRun = true
	_, err = f.RetireIdentity(t.Context(), dry, exchange.FormatFingerprint(former), 1, []string{excused.TPM.Machine()})
	require.NoError(t, err)
	require.Len(t, f.census().Keys, 2)
	require.NoError(t, f.retireIdentity(former, 1, excused.TPM.Machine()))
	entry := f.latest(kms.ActionRetireIdentity)
	assert.Contains(t, entry.Facts, audit.Fact{Name: "left_behind", Is: "2"})
	assert.NotContains(t, entry.Facts, audit.Fact{Name: "left_behind.machine", Is: revoked.TPM.Machine()})
	gone.Boot()
	_, err = gone.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonServiceKey, err)
}

// Applications' calls are answered with the key that the machine knows, too.
func TestIdentityRotatesWhileKeysAreUsed(t *testing.T) {
	f := rotating(t)
	f.unlock(f.booted("web-17"))
	former, current := f.rotateIdentity()
	for _, pin := range [][32]byte{former, current} {
		c, err := keyChallenge(f.IssueKeyChallenge())
		require.NoError(t, err)
		call, err := api.OpenKeyCall([][32]byte{pin}, c, exchange.KeyDataKey, kms.DefaultKeyring, &exchange.KeyRequest{Items: []exchange.KeyItem{{Size: 32}}})
		require.NoError(t, err)
		assert.Equal(t, pin, call.Statement.ServiceKey)
	}
	_, err := api.OpenKeyCall([][32]byte{{}}, api.KeyChallenge{Challenge: make([]byte, 32)}, exchange.KeyDataKey, kms.DefaultKeyring, &exchange.KeyRequest{Items: []exchange.KeyItem{{Size: 32}}})
	require.ErrorIs(t, err, exchange.ErrServiceKey)
}

// A boot says what it pins, and the key that it names is among that.
func TestABootSaysWhatItPins(t *testing.T) {
	f := rotating(t)
	m := f.booted("web-17")
	for _, pins := range [][][]byte{{make([]byte, 32)}, {m.ServiceKey[:], {1}}, make([][]byte, 5)} {
		m.Pins = pins
		m.Boot()
		_, err := m.Unlock(t.Context(), f.guest())
		refused(t, kms.ReasonMalformed, err)
	}
}

// Who stole the former key cannot pass for the service once that is retired and the
// machine pins the current one alone; nor does an old list pass for a new one.
func TestAttack33ARetiredKeyPushesNoPins(t *testing.T) {
	f := newFixture(t)
	stolen, _, err := signers()
	require.NoError(t, err)
	f.Identities, err = kms.NewIdentities(stolen)
	require.NoError(t, err)
	former, nonce := f.ServiceKey(), [32]byte{1}
	old, err := f.ServiceKeyList(former[:], nonce[:], netip.Addr{})
	require.NoError(t, err)
	require.NoError(t, exchange.VerifyServiceKeys(former, old.ServiceKey, nonce, old.Keys, old.Signature))
	require.ErrorIs(t, exchange.VerifyServiceKeys(former, old.ServiceKey, [32]byte{2}, old.Keys, old.Signature), exchange.ErrSignature, "another nonce")

	// The thief's list is signed by what a machine pins until it has dropped that.
	forged := [][32]byte{{9}, former}
	signature, err := exchange.SignServiceKeys(stolen, nonce, forged)
	require.NoError(t, err)
	require.NoError(t, exchange.VerifyServiceKeys(former, old.ServiceKey, nonce, forged, signature))
	current := [32]byte{5}
	require.ErrorIs(t, exchange.VerifyServiceKeys(current, old.ServiceKey, nonce, forged, signature), exchange.ErrServiceKey)
	alone := [][32]byte{{9}}
	signature, err = exchange.SignServiceKeys(stolen, nonce, alone)
	require.NoError(t, err)
	require.ErrorContains(t, exchange.VerifyServiceKeys(former, old.ServiceKey, nonce, alone, signature), "lack the one")
	many := append(make([][32]byte, exchange.MaxServiceKeys), former)
	signature, err = exchange.SignServiceKeys(stolen, nonce, many)
	require.NoError(t, err)
	require.ErrorContains(t, exchange.VerifyServiceKeys(former, old.ServiceKey, nonce, many, signature), "at most 4")

	retired := rotating(t)
	_, err = retired.ServiceKeyList(former[:], nonce[:], netip.Addr{})
	refused(t, kms.ReasonServiceKey, err)
}
