package kms_test

import (
	"bytes"
	"crypto/sha256"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
	"keywright.dev/kms/audit"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/policy"
	"keywright.dev/test/sim"
)

// TestAttack21CiphertextOfAnother presents what was wrapped for one place in every
// other.
func TestAttack21CiphertextOfAnother(t *testing.T) {
	f := newFixture(t)
	require.NoError(t, f.keys.AddVersion(t.Context(), "prod", 1))
	one, other := f.running("web-1"), f.running("web-2")
	item := exchange.KeyItem{Context: "c", Plaintext: plain("s")}
	own := f.use(one, exchange.KeyWrap, item)[0].Wrapped
	operators := f.operate(exchange.KeyWrap, kms.DefaultKeyring, item)[0].Wrapped
	prod := f.operate(exchange.KeyWrap, "prod", item)[0].Wrapped
	keyslot := f.wrapFor(one, kms.PurposeKeyslot)
	application := f.wrapFor(one, kms.PurposeApplication)

	asMachine := func(m *sim.Machine) func(exchange.KeyOperation, exchange.KeyItem) exchange.KeyResult {
		return func(op exchange.KeyOperation, i exchange.KeyItem) exchange.KeyResult { return f.use(m, op, i)[0] }
	}
	asOperator := func(op exchange.KeyOperation, i exchange.KeyItem) exchange.KeyResult {
		return f.operate(op, kms.DefaultKeyring, i)[0]
	}
	for name, attack := range map[string]struct {
		as      func(exchange.KeyOperation, exchange.KeyItem) exchange.KeyResult
		context string
		wrapped string
	}{
		"another machine's":             {asMachine(other), "c", own},
		"an operators', by a machine":   {asMachine(one), "c", operators},
		"a machine's, by an operator":   {asOperator, "c", own},
		"another context":               {asMachine(one), "d", own},
		"no context":                    {asMachine(one), "", own},
		"another keyring's":             {asOperator, "c", prod},
		"another keyring's, renamed":    {asOperator, "c", strings.Replace(prod, "prod", "default", 1)},
		"a keyslot's":                   {asMachine(one), one.Volumes[0].ID, keyslot},
		"a keyslot's, by an operator":   {asOperator, one.Volumes[0].ID, keyslot},
		"another version of the secret": {asMachine(one), one.Volumes[0].ID, application},
	} {
		t.Run(name, func(t *testing.T) {
			for _, operation := range []exchange.KeyOperation{exchange.KeyUnwrap, exchange.KeyRewrap} {
				f.clock.Advance(10 * time.Second)
				r := attack.as(operation, exchange.KeyItem{Context: attack.context, Wrapped: attack.wrapped})
				assert.Equal(t, string(kms.ReasonCiphertext), r.Code)
				assert.Zero(t, r.Plaintext.Len())
				assert.Empty(t, r.Wrapped)
			}
		})
	}
	require.NoError(t, f.keys.AddVersion(t.Context(), kms.DefaultKeyring, 2))
	r := asMachine(one)(exchange.KeyUnwrap, exchange.KeyItem{Context: "c", Wrapped: strings.Replace(own, ".1.", ".2.", 1)})
	assert.Equal(t, string(kms.ReasonCiphertext), r.Code, "another version of the keyring")
	assert.Equal(t, "s", text(asMachine(one)(exchange.KeyUnwrap, exchange.KeyItem{Context: "c", Wrapped: own}).Plaintext))
}

// TestAttack21SoftwareAK swaps the AK in the machine's row for another one: what
// was wrapped under the TPM's own opens nothing.
func TestAttack21SoftwareAK(t *testing.T) {
	f := newFixture(t)
	m := f.running("web-17")
	own := f.use(m, exchange.KeyWrap, exchange.KeyItem{Plaintext: plain("s")})[0].Wrapped
	thief := *m
	forged, err := sim.NewTPM()
	require.NoError(t, err)
	forged.EKPublic, forged.PCRs = m.TPM.EKPublic, m.TPM.PCRs
	thief.TPM = forged
	ak, err := exchange.CheckAK(forged.AKPublic)
	require.NoError(t, err)
	require.NoError(t, f.store.Transact(t.Context(), kms.Key{Machine: m.TPM.Machine()}, func(s kms.State) (kms.Outcome, error) {
		s.Machine.AK, s.Machine.AKName = forged.AKPublic, ak.Name
		s.Machine.Counters = kms.Counters{}
		return kms.Outcome{Machine: s.Machine}, nil
	}))
	r := f.use(&thief, exchange.KeyUnwrap, exchange.KeyItem{Wrapped: own})[0]
	assert.Equal(t, string(kms.ReasonCiphertext), r.Code)
}

// A machine gets nothing unless it runs with its keys of this boot, approved.
func TestKeysForWhomTheyAreNotFor(t *testing.T) {
	item := exchange.KeyItem{Plaintext: plain("s")}
	for name, c := range map[string]struct {
		reason kms.Reason
		is     func(f *fixture) *sim.Machine
	}{
		"waits for approval": {kms.ReasonPending, func(f *fixture) *sim.Machine {
			m := f.machine("web-17")
			require.NoError(t, m.Enroll(t.Context(), f.guest()))
			return m
		}},
		"has no keys of this boot": {kms.ReasonUnreleased, func(f *fixture) *sim.Machine { return f.active("web-17") }},
		"was restarted": {kms.ReasonUnreleased, func(f *fixture) *sim.Machine {
			m := f.running("web-17")
			m.Boot()
			return m
		}},
		"extended PCR 15 since": {kms.ReasonUnreleased, func(f *fixture) *sim.Machine {
			m := f.running("web-17")
			m.TPM.Extend(15, [32]byte{1})
			return m
		}},
		"is revoked": {kms.ReasonRevoked, func(f *fixture) *sim.Machine {
			m := f.running("web-17")
			_, _, err := f.RevokeMachine(t.Context(), operator(), "web-17", "stolen")
			require.NoError(t, err)
			return m
		}},
		"went back": {kms.ReasonCounters, func(f *fixture) *sim.Machine {
			m := f.running("web-17")
			m.TPM.Clock.ResetCount--
			return m
		}},
		"is forbidden by policy": {kms.ReasonPolicy, func(f *fixture) *sim.Machine {
			m := f.running("web-17")
			documents, err := policy.Shipped()
			require.NoError(t, err)
			f.policy, err = policy.New(append(documents, policy.Document{Name: "site.cedar", Text: []byte(
				`@id("no-keys") forbid (principal is Machine, action == Action::"key.use", resource);`)})...)
			require.NoError(t, err)
			return m
		}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			m := c.is(f)
			_, err := m.UseKeys(t.Context(), f.guest(), exchange.KeyWrap, kms.DefaultKeyring, item)
			refused(t, c.reason, err)
			entry := f.lastEntry(m.TPM.Machine())
			assert.Equal(t, audit.Refused, entry.Outcome)
			assert.Equal(t, string(c.reason), entry.Code)
			uses, err := f.store.KeyringUses(t.Context())
			require.NoError(t, err)
			assert.Empty(t, uses)
		})
	}
}

func TestKeyringsThatMachinesDoNotGet(t *testing.T) {
	f := newFixture(t)
	require.NoError(t, f.keys.AddVersion(t.Context(), "prod", 1))
	m := f.running("web-17")
	for keyring, reason := range map[string]kms.Reason{
		"prod": kms.ReasonPolicy, "system": kms.ReasonKeyring, "none": kms.ReasonKeyring, "": kms.ReasonKeyring,
	} {
		_, err := m.UseKeys(t.Context(), f.guest(), exchange.KeyDataKey, keyring, exchange.KeyItem{Size: 32})
		refused(t, reason, err)
	}
}

func TestKeyringsThatOperatorsDoNotGet(t *testing.T) {
	f := newFixture(t)
	item := exchange.KeyItem{Size: 32}
	_, err := f.send(f.prepareOperate(exchange.KeyDataKey, "system", item), exchange.KeyDataKey, "system")
	var state *kms.StateError
	require.ErrorAs(t, err, &state)
	_, err = f.send(f.prepareOperate(exchange.KeyDataKey, "none", item), exchange.KeyDataKey, "none")
	require.ErrorIs(t, err, kms.ErrNotFound)
}

// A call answers once: neither it nor a part of it serves another.
func TestKeyCallsCannotBeMixed(t *testing.T) {
	f := newFixture(t)
	m := f.running("web-17")
	ctx, g := t.Context(), f.guest()
	prepare := func(operation exchange.KeyOperation, item exchange.KeyItem) *sim.KeyUse {
		u, err := m.PrepareKeys(ctx, g, operation, kms.DefaultKeyring, item)
		require.NoError(t, err)
		return u
	}
	wrap := exchange.KeyItem{Plaintext: plain("s")}

	u := prepare(exchange.KeyWrap, wrap)
	_, err := u.Call(ctx, g)
	require.NoError(t, err)
	_, err = u.Call(ctx, g)
	refused(t, kms.ReasonChallenge, err)

	swapped := prepare(exchange.KeyWrap, wrap)
	swapped.Sealed = prepare(exchange.KeyWrap, wrap).Sealed
	_, err = swapped.Call(ctx, g)
	refused(t, kms.ReasonMalformed, err)

	other := prepare(exchange.KeyWrap, wrap)
	h := sha256.Sum256(other.Sealed)
	other.Statement.Details, err = exchange.MarshalDetails(exchange.KeyDetails{
		Operation: exchange.KeyUnwrap, Keyring: kms.DefaultKeyring, Request: h[:],
	})
	require.NoError(t, err)
	_, err = other.Call(ctx, g)
	refused(t, kms.ReasonMalformed, err)

	volumes := prepare(exchange.KeyWrap, wrap)
	volumes.Statement.Volumes = []exchange.Volume{m.Volumes[0].Volume}
	_, err = volumes.Call(ctx, g)
	refused(t, kms.ReasonMalformed, err)

	boot, err := g.Challenge(ctx)
	require.NoError(t, err)
	request, err := prepare(exchange.KeyWrap, wrap).Attest()
	require.NoError(t, err)
	request.Token = boot.Token
	_, err = g.Keys(ctx, request)
	refused(t, kms.ReasonChallenge, err)

	c := f.prepareOperate(exchange.KeyWrap, kms.DefaultKeyring, wrap)
	_, err = f.send(c, exchange.KeyUnwrap, kms.DefaultKeyring)
	refused(t, kms.ReasonMalformed, err)
	_, err = f.send(c, exchange.KeyWrap, kms.DefaultKeyring)
	require.NoError(t, err)
	_, err = f.send(c, exchange.KeyWrap, kms.DefaultKeyring)
	refused(t, kms.ReasonChallenge, err)
}

// A recipient key that the service did not sign gets no request.
func TestKeyRequestsGoToTheServiceAlone(t *testing.T) {
	f := newFixture(t)
	c, err := keyChallenge(f.IssueKeyChallenge())
	require.NoError(t, err)
	request := &exchange.KeyRequest{Items: []exchange.KeyItem{{Size: 32}}}
	pins := [][32]byte{f.ServiceKey()}
	thief, err := exchange.NewRecipient()
	require.NoError(t, err)
	forged := c
	forged.Recipient = thief.PublicKey()
	_, err = api.OpenKeyCall(pins, forged, exchange.KeyDataKey, "default", request)
	require.ErrorIs(t, err, exchange.ErrSignature)
	moved := c
	moved.Challenge = bytes.Repeat([]byte{1}, 32)
	_, err = api.OpenKeyCall(pins, moved, exchange.KeyDataKey, "default", request)
	require.ErrorIs(t, err, exchange.ErrSignature)
	_, err = api.OpenKeyCall([][32]byte{{1}}, c, exchange.KeyDataKey, "default", request)
	require.ErrorIs(t, err, exchange.ErrServiceKey)
}
