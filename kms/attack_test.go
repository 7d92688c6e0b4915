package kms_test

import (
	"encoding/base64"
	"encoding/hex"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
	"keywright.dev/kms/audit"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/policy"
	"keywright.dev/kms/secret"
	"keywright.dev/test/sim"
)

// request is an honest release request that tests falsify.
func request(t *testing.T, f *fixture, m *sim.Machine) *sim.Request {
	t.Helper()
	r, err := m.PrepareRelease(t.Context(), f.guest())
	require.NoError(t, err)
	return r
}

func TestAttack02EvidenceIsReplayed(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	r := request(t, f, m)
	recorded, err := r.Attest()
	require.NoError(t, err)
	_, err = f.guest().Release(t.Context(), api.ReleaseRequest{Attested: recorded})
	require.NoError(t, err)

	t.Run("as it was", func(t *testing.T) {
		_, err := f.guest().Release(t.Context(), api.ReleaseRequest{Attested: recorded})
		refused(t, kms.ReasonChallenge, err)
		assert.Equal(t, "challenge", f.lastEntry(m.TPM.Machine()).Code)
	})
	t.Run("under a fresh challenge", func(t *testing.T) {
		fresh, err := f.guest().Challenge(t.Context())
		require.NoError(t, err)
		replayed := recorded
		replayed.Challenge, replayed.Token = fresh.Challenge, fresh.Token
		_, err = f.guest().Release(t.Context(), api.ReleaseRequest{Attested: replayed})
		refused(t, kms.ReasonChallenge, err)
	})
	t.Run("under a fresh challenge, again and again", func(t *testing.T) {
		m.Boot()
		_, err := m.Unlock(t.Context(), f.guest())
		require.NoError(t, err)
		before, entry := f.row(m), f.lastEntry(m.TPM.Machine())
		for range 50 { // more than the machine itself may ask
			fresh, err := f.guest().Challenge(t.Context())
			require.NoError(t, err)
			replayed := recorded
			replayed.Challenge, replayed.Token = fresh.Challenge, fresh.Token
			_, err = f.guest().Release(t.Context(), api.ReleaseRequest{Attested: replayed})
			refused(t, kms.ReasonChallenge, err)
		}
		assert.Equal(t, before, f.row(m), "old evidence says nothing about the machine")
		assert.Equal(t, entry, f.lastEntry(m.TPM.Machine()), "and is nobody's")
		m.Boot()
		_, err = m.Unlock(t.Context(), f.guest())
		require.NoError(t, err, "the machine itself has lost nothing")
	})
	t.Run("as another step's", func(t *testing.T) {
		fresh, err := f.guest().CommitChallenge(t.Context())
		require.NoError(t, err)
		replayed := recorded
		replayed.Challenge, replayed.Token = fresh.Challenge, fresh.Token
		_, err = f.guest().Commit(t.Context(), api.CommitRequest{Attested: replayed})
		refused(t, kms.ReasonQuote, err)
	})
	t.Run("under a challenge of one's own making", func(t *testing.T) {
		own := request(t, f, m)
		own.Challenge.Challenge = make([]byte, 32)
		own.Statement.Challenge = [32]byte{}
		_, err := own.Unlock(t.Context(), f.guest())
		refused(t, kms.ReasonChallenge, err)
	})
	t.Run("under a challenge of another step", func(t *testing.T) {
		commit, err := f.guest().CommitChallenge(t.Context())
		require.NoError(t, err)
		r, err := m.Prepare(exchange.PurposeBoot, commit)
		require.NoError(t, err)
		_, err = r.Unlock(t.Context(), f.guest())
		refused(t, kms.ReasonChallenge, err)
	})
	t.Run("after it expired", func(t *testing.T) {
		late := request(t, f, m)
		f.clock.Advance(kms.ChallengeTTL)
		_, err := late.Unlock(t.Context(), f.guest())
		refused(t, kms.ReasonChallenge, err)
	})
	t.Run("after it was forgotten", func(t *testing.T) {
		f.clock.Advance(24 * time.Hour)
		_, err := f.guest().Release(t.Context(), api.ReleaseRequest{Attested: recorded})
		refused(t, kms.ReasonChallenge, err)
	})
}

func TestAttack03EvidenceOfAnotherMachineIsRelayed(t *testing.T) {
	f := newFixture(t)
	victim, thief := f.active("victim"), f.active("thief")

	t.Run("the victim's quote in the thief's name", func(t *testing.T) {
		a, err := request(t, f, victim).Attest()
		require.NoError(t, err)
		a.Machine = thief.TPM.Machine()
		_, err = f.guest().Release(t.Context(), api.ReleaseRequest{Attested: a})
		refused(t, kms.ReasonQuote, err)
	})
	t.Run("the thief's quote in the victim's name", func(t *testing.T) {
		a, err := request(t, f, thief).Attest()
		require.NoError(t, err)
		a.Machine = victim.TPM.Machine()
		_, err = f.guest().Release(t.Context(), api.ReleaseRequest{Attested: a})
		refused(t, kms.ReasonQuote, err)
	})
	t.Run("the thief's recipient key behind the victim's quote", func(t *testing.T) {
		r := request(t, f, victim)
		a, err := r.Attest()
		require.NoError(t, err)
		mine, err := exchange.NewRecipient()
		require.NoError(t, err)
		r.Statement.Recipient = mine.PublicKey()
		a.Statement, err = r.Statement.Marshal()
		require.NoError(t, err)
		_, err = f.guest().Release(t.Context(), api.ReleaseRequest{Attested: a})
		refused(t, kms.ReasonQuote, err)
	})
	t.Run("the thief states to be the victim", func(t *testing.T) {
		r := request(t, f, thief)
		r.Statement.Machine = victim.TPM.Machine()
		a, err := r.Attest()
		require.NoError(t, err)
		a.Machine = thief.TPM.Machine()
		_, err = f.guest().Release(t.Context(), api.ReleaseRequest{Attested: a})
		refused(t, kms.ReasonMalformed, err)
	})
	t.Run("the thief asks for the victim's volumes", func(t *testing.T) {
		r := request(t, f, thief)
		r.Statement.Volumes = nil
		for _, v := range victim.Volumes {
			r.Statement.Volumes = append(r.Statement.Volumes, v.Volume)
		}
		_, err := r.Unlock(t.Context(), f.guest())
		refused(t, kms.ReasonVolume, err)
	})
}

func TestAttack04IdentityIsTakenOver(t *testing.T) {
	f := newFixture(t)
	victim := f.active("victim")
	before, err := f.FindMachine(t.Context(), "victim")
	require.NoError(t, err)

	t.Run("with the victim's EK and another AK", func(t *testing.T) {
		thief := f.machine("victim")
		thief.TPM.EKPublic = victim.TPM.EKPublic
		begun, err := f.guest().Begin(t.Context(), api.BeginRequest{Keys: thief.Keys()})
		require.NoError(t, err)
		r, err := thief.Prepare(exchange.PurposeEnroll, begun.Challenge)
		require.NoError(t, err)
		_, err = r.CompleteRequest(begun)
		require.Error(t, err, "the credential is for the victim's TPM")
		a, err := r.Attest()
		require.NoError(t, err)
		guess := exchange.EnrollProof(secret.New(make([]byte, exchange.CredentialSize)), a.Statement)
		_, err = f.guest().Complete(t.Context(), api.CompleteRequest{Attested: a, Keys: thief.Keys(), Proof: guess[:]})
		refused(t, kms.ReasonCredential, err)
	})
	t.Run("with the victim's TPM again", func(t *testing.T) {
		again := *victim
		again.Volumes = []sim.Volume{{Volume: exchange.Volume{UUID: victim.Volumes[0].UUID}}}
		refused(t, kms.ReasonEnrolled, again.Enroll(t.Context(), f.guest()))
	})
	t.Run("with a proof of nothing", func(t *testing.T) {
		thief := f.machine("victim")
		begun, err := f.guest().Begin(t.Context(), api.BeginRequest{Keys: thief.Keys()})
		require.NoError(t, err)
		r, err := thief.Prepare(exchange.PurposeEnroll, begun.Challenge)
		require.NoError(t, err)
		c, err := r.CompleteRequest(begun)
		require.NoError(t, err)
		c.Proof[0] ^= 1
		_, err = f.guest().Complete(t.Context(), c)
		refused(t, kms.ReasonCredential, err)
	})
	t.Run("with the victim's name", func(t *testing.T) {
		thief := f.machine("victim")
		require.NoError(t, thief.Enroll(t.Context(), f.guest()))
		_, err := f.ApproveMachine(t.Context(), operator(), thief.TPM.Machine(), kms.Approval{EKHash: thief.TPM.Machine()})
		require.ErrorContains(t, err, "another machine has the name")
	})
	after, err := f.FindMachine(t.Context(), "victim")
	require.NoError(t, err)
	assert.Equal(t, before, after)
}

func TestAttack06TPMOfOnesOwnMaking(t *testing.T) {
	f := newFixture(t)
	m := f.machine("web-17")
	require.NoError(t, m.Enroll(t.Context(), f.guest()))

	_, err := f.ApproveMachine(t.Context(), operator(), m.TPM.Machine(), kms.Approval{})
	require.ErrorContains(t, err, "--ek-hash")
	other := f.machine("other")
	_, err = f.ApproveMachine(t.Context(), operator(), m.TPM.Machine(), kms.Approval{EKHash: other.TPM.Machine()})
	require.ErrorContains(t, err, "not the machine you meant")
	m.Boot()
	_, err = m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonPending, err)

	t.Run("with an AK that may sign anything", func(t *testing.T) {
		loose := f.machine("loose")
		loose.TPM.AKPublic = append([]byte(nil), loose.TPM.AKPublic...)
		loose.TPM.AKPublic[5] &^= 1 // restricted
		refused(t, kms.ReasonKeys, loose.Enroll(t.Context(), f.guest()))
	})
	t.Run("with an EK of no standard template", func(t *testing.T) {
		odd := f.machine("odd")
		odd.TPM.EKPublic = append([]byte(nil), odd.TPM.EKPublic...)
		odd.TPM.EKPublic[20] ^= 1
		refused(t, kms.ReasonKeys, odd.Enroll(t.Context(), f.guest()))
	})
}

// empty is a policy that nobody wrote.
type empty struct{}

func (empty) Release(m policy.Machine, v policy.Volume, b policy.Boot) policy.Decision {
	return (&policy.Engine{}).Release(m, v, b)
}

func (empty) AddVolume(m policy.Machine, b policy.Boot) policy.Decision {
	return (&policy.Engine{}).AddVolume(m, b)
}

func (empty) UseKeys(m policy.Machine, k policy.Keyring, b policy.Boot) policy.Decision {
	return (&policy.Engine{}).UseKeys(m, k, b)
}

func (empty) Stage(m policy.Machine, b policy.Boot) policy.Decision {
	return (&policy.Engine{}).Stage(m, b)
}

func TestAttack08EmptyPolicyReleasesNothing(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	f.Policy = func() kms.Policy { return empty{} }
	_, err := m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonPolicy, err)
	assert.Equal(t, audit.Refused, f.lastEntry(m.TPM.Machine()).Outcome)
}

func TestAttack11HeaderOfAnotherIdentity(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	for name, change := range map[string]func(*exchange.Volume){
		"identity": func(v *exchange.Volume) { v.Identity[0] ^= 1 },
		"UUID":     func(v *exchange.Volume) { v.UUID = "0e0d1d5c-0000-4000-8000-000000000001" },
	} {
		t.Run(name, func(t *testing.T) {
			r := request(t, f, m)
			change(&r.Statement.Volumes[1])
			_, err := r.Unlock(t.Context(), f.guest())
			refused(t, kms.ReasonVolume, err)
			facts := f.lastEntry(m.TPM.Machine()).Facts
			assert.NotEqual(t, facts[0].Was, facts[0].Is)
		})
	}
	_, err := m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)
}

// TestAttack28AKRowIsSwapped puts a software key in the place of the AK.
func TestAttack28AKRowIsSwapped(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	thief, err := sim.NewTPM()
	require.NoError(t, err)
	row, err := f.FindMachine(t.Context(), "web-17")
	require.NoError(t, err)
	ak, err := exchange.CheckAK(thief.AKPublic)
	require.NoError(t, err)

	forged := *thief
	forged.EKPublic, forged.PCRs, forged.Clock = m.TPM.EKPublic, m.TPM.PCRs, m.TPM.Clock
	row.AK, row.AKName = thief.AKPublic, ak.Name
	f.write(kms.Outcome{Machine: row})
	m.TPM = &forged
	_, err = m.Unlock(t.Context(), f.guest())
	refusal := refused(t, kms.ReasonVolume, err)
	assert.Contains(t, refusal.Detail, "does not open for the keys that signed this quote")

	row.EK = thief.EKPublic
	f.write(kms.Outcome{Machine: row})
	_, err = m.Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonKeys, err)
}

func TestAttack29TPMEnrolsUnderAnotherEK(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	_, _, err := f.RevokeMachine(t.Context(), operator(), "web-17", "")
	require.NoError(t, err)
	refused(t, kms.ReasonRevoked, m.Enroll(t.Context(), f.guest()))

	second, err := m.TPM.WithAnotherEK()
	require.NoError(t, err)
	again := *m
	again.TPM = second
	refusal := refused(t, kms.ReasonEnrolled, again.Enroll(t.Context(), f.guest()))
	assert.Contains(t, refusal.Detail, "another endorsement key")
}

func TestAttack27UnknownComponentIsPartOfTheMeasurement(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	const efiBootServicesDriver = 0x80000004
	for name, pcr := range map[string]uint32{"option ROM": 2, "boot application": 4, "MOK": 14} {
		t.Run(name, func(t *testing.T) {
			extra, err := recordedBoot(t, "ovmf-uki").With(pcr, efiBootServicesDriver, []byte("something else"))
			require.NoError(t, err)
			m.Log = extra
			m.Boot()
			_, err = m.Unlock(t.Context(), f.guest())
			refused(t, kms.ReasonMeasurement, err)
			assert.NotEmpty(t, f.lastEntry(m.TPM.Machine()).Facts)
		})
	}
}

func TestStatementMustPinThisService(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	m.ServiceKey = [32]byte{1}
	_, err := request(t, f, m).Unlock(t.Context(), f.guest())
	refused(t, kms.ReasonServiceKey, err)
}

// row returns what is stored of a machine.
func (f *fixture) row(m *sim.Machine) *kms.Machine {
	f.t.Helper()
	row, err := f.FindMachine(f.t.Context(), m.TPM.Machine())
	require.NoError(f.t, err)
	return row
}

// write changes rows behind the domain's back.
func (f *fixture) write(out kms.Outcome) {
	f.t.Helper()
	key := kms.Key{}
	if out.Machine != nil {
		key.Machine = out.Machine.ID
	}
	require.NoError(f.t, f.store.Transact(f.t.Context(), key, func(kms.State) (kms.Outcome, error) { return out, nil }))
}

// TestNoSecretReachesTheLog looks for a released key in every entry.
func TestNoSecretReachesTheLog(t *testing.T) {
	f := newFixture(t)
	m := f.active("web-17")
	_, err := m.Unlock(t.Context(), f.guest())
	require.NoError(t, err)
	found, err := f.store.LatestEntries(t.Context(), "", "", 100)
	require.NoError(t, err)
	require.NotEmpty(t, found)
	for _, e := range found {
		for _, v := range m.Volumes {
			assertAbsent(t, e.Signed, v.Key)
		}
	}
}

// assertAbsent looks for a key in raw, hex and base64 form.
func assertAbsent(t *testing.T, text []byte, key secret.Bytes) {
	t.Helper()
	raw := key.Expose()
	for _, form := range []string{string(raw), hex.EncodeToString(raw), base64.StdEncoding.EncodeToString(raw), base64.URLEncoding.EncodeToString(raw)} {
		assert.NotContains(t, string(text), form)
	}
}
