package kms_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
	"keywright.dev/kms/audit"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/pki"
	"keywright.dev/kms/policy"
	"keywright.dev/kms/root"
	"keywright.dev/kms/secret"
	"keywright.dev/kms/store/sqlite"
	"keywright.dev/test/sim"
)

// clock is a clock that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// fixture is the domain over a real store, a real root and shipped policies.
type fixture struct {
	*kms.Service
	t      *testing.T
	clock  *clock
	store  *sqlite.Store
	keys   *kms.Keys
	root   *countingRoot
	policy *policy.Engine
	trust  string
	// rotates has the service keep its identity key in the store.
	rotates bool
	slept   atomic.Int64 // of the host, in nanoseconds
}

// uptime goes on with the clock, and while the host sleeps.
func (f *fixture) uptime() time.Duration {
	return f.clock.Now().Sub(time.Unix(0, 0)) + time.Duration(f.slept.Load())
}

func (f *fixture) keysConfig(roots ...root.Root) kms.KeysConfig {
	return kms.KeysConfig{Store: f.store, Roots: roots, Clock: f.clock.Now, Uptime: f.uptime, Random: rand.Reader}
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	counting := &countingRoot{Root: newSwitched(t)}
	f := newFixtureOn(t, counting)
	f.root = counting
	return f
}

// newFixtureOn returns a fixture whose keyrings are wrapped by roots.
func newFixtureOn(t *testing.T, roots ...root.Root) *fixture {
	t.Helper()
	ctx, dir := t.Context(), t.TempDir()
	f := &fixture{t: t, clock: &clock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}, trust: kms.TrustByPerson}
	var err error
	f.store, err = sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(dir, "store.db"), Clock: f.clock.Now})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, f.store.Close()) })

	f.keys, err = kms.OpenKeys(ctx, f.keysConfig(roots...))
	require.NoError(t, err)

	documents, err := policy.Shipped()
	require.NoError(t, err)
	f.policy, err = policy.New(documents...)
	require.NoError(t, err)
	f.Service = f.service()
	return f
}

// signers returns a service identity key and the log's, both fresh.
func signers() (*ecdsa.PrivateKey, *audit.Signer, error) {
	identity, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	log, err := audit.NewSigner("keywright.test/log", key)
	return identity, log, err
}

// service makes a domain with fresh service keys over the fixture's store.
func (f *fixture) service() *kms.Service {
	f.t.Helper()
	challenges, err := kms.OpenChallenges(f.t.Context(), f.keys, f.clock.Now, rand.Reader)
	require.NoError(f.t, err)
	identity, log, err := signers()
	require.NoError(f.t, err)
	identities, err := kms.NewIdentities(identity)
	require.NoError(f.t, err)
	if f.rotates {
		identities, err = kms.OpenIdentities(f.t.Context(), f.keys, identityMaker())
		require.NoError(f.t, err)
	}
	service, err := kms.New(kms.Config{
		Store: f.store, Keys: f.keys, Challenges: challenges, Identities: identities, Identity: identityMaker(), Log: log,
		Trust:  func(exchange.EK, []byte, time.Time) (string, error) { return f.trust, nil },
		Policy: func() kms.Policy { return f.policy },
		Clock:  f.clock.Now, Random: rand.Reader,
	})
	require.NoError(f.t, err)
	return service
}

func identityMaker() kms.IdentityMaker {
	return kms.IdentityMaker{Make: pki.MakeIdentity, Open: func(private secret.Bytes) (crypto.Signer, error) { return pki.OpenIdentity(private) }}
}

func (f *fixture) roots() []root.Root { return []root.Root{f.root} }

// secretsOf returns the secrets of a machine's volumes, recovery keys included.
func (f *fixture) secretsOf(m *sim.Machine) (secrets []kms.Secret) {
	f.t.Helper()
	require.NoError(f.t, f.store.Transact(f.t.Context(), kms.Key{Machine: m.TPM.Machine(), Recovery: true}, func(state kms.State) (kms.Outcome, error) {
		secrets = state.Secrets
		return kms.Outcome{}, nil
	}))
	return secrets
}

// latest returns the newest entry of an action.
func (f *fixture) latest(action string) audit.Entry {
	f.t.Helper()
	found, err := f.store.LatestEntries(f.t.Context(), "", action, 1)
	require.NoError(f.t, err)
	require.Len(f.t, found, 1)
	entry, err := f.Log.Verifier().Verify(found[0].Signed)
	require.NoError(f.t, err)
	return entry
}

func operator() kms.Operator {
	return kms.Operator{Actor: audit.Actor{Kind: audit.ActorOperator, ID: "uid/0"}}
}

// log returns a recorded boot of OVMF and a UKI.
func recordedBoot(t *testing.T, name string) *sim.Log {
	t.Helper()
	log, err := sim.ReadLog(filepath.Join("attest", "testdata", "eventlogs", name+".bin"))
	require.NoError(t, err)
	return log
}

func (f *fixture) machine(name string) *sim.Machine {
	f.t.Helper()
	m, err := sim.NewMachine(name, recordedBoot(f.t, "ovmf-uki"), f.ServiceKey(), 2)
	require.NoError(f.t, err)
	return m
}

// active returns a machine that is enrolled, approved and restarted.
func (f *fixture) active(name string) *sim.Machine {
	f.t.Helper()
	m := f.machine(name)
	require.NoError(f.t, m.Enroll(f.t.Context(), f.guest()))
	f.approve(m)
	m.Boot()
	return m
}

func (f *fixture) approve(m *sim.Machine) {
	f.t.Helper()
	_, err := f.ApproveMachine(f.t.Context(), operator(), m.TPM.Machine(), kms.Approval{EKHash: m.TPM.Machine()})
	require.NoError(f.t, err)
}

func (f *fixture) guest() *direct { return &direct{f.Service} }

// refused holds that err is a refusal for reason.
func refused(t *testing.T, reason kms.Reason, err error) *kms.Refusal {
	t.Helper()
	var refusal *kms.Refusal
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, reason, refusal.Reason, refusal.Detail)
	return refusal
}

// lastEntry returns the newest entry about a machine.
func (f *fixture) lastEntry(machine string) audit.Entry {
	f.t.Helper()
	found, err := f.store.LatestEntries(f.t.Context(), machine, "", 1)
	require.NoError(f.t, err)
	require.Len(f.t, found, 1)
	entry, err := f.Log.Verifier().Verify(found[0].Signed)
	require.NoError(f.t, err)
	return entry
}

// direct is the guest's side of the domain without a network.
type direct struct{ service *kms.Service }

func attested(a api.Attested) kms.Attested {
	return kms.Attested{
		Machine: a.Machine, Challenge: a.Challenge, Token: a.Token, Statement: a.Statement,
		Evidence: kms.Evidence{Quote: a.Evidence.Quote, Signature: a.Evidence.Signature, PCRs: a.Evidence.PCRs, EventLog: a.Evidence.EventLog},
		Source:   netip.MustParseAddr("192.0.2.7"),
	}
}

func challenge(c kms.Challenge, err error) (api.Challenge, error) {
	selection := exchange.SelectionBitmap()
	return api.Challenge{Challenge: c.Nonce[:], Token: c.Token, Expires: c.Expires, Selection: selection[:]}, err
}

func sealed(s kms.Sealed) api.Sealed {
	return api.Sealed{Response: s.Response, Signature: s.Signature, ServiceKey: s.ServiceKey}
}

func (d *direct) Challenge(context.Context) (api.Challenge, error) {
	return challenge(d.service.IssueChallenge(exchange.PurposeBoot))
}

func (d *direct) CommitChallenge(context.Context) (api.Challenge, error) {
	return challenge(d.service.IssueChallenge(exchange.PurposeCommit))
}

func (d *direct) Release(ctx context.Context, r api.ReleaseRequest) (api.ReleaseResponse, error) {
	s, err := d.service.Release(ctx, attested(r.Attested))
	return api.ReleaseResponse{Sealed: sealed(s)}, err
}

func keysOf(k api.TPMKeys) kms.TPMKeys {
	return kms.TPMKeys{EK: k.EK, EKCertificate: k.EKCertificate, AK: k.AK}
}

func (d *direct) Begin(ctx context.Context, r api.BeginRequest) (api.BeginResponse, error) {
	e, err := d.service.BeginEnrollment(ctx, keysOf(r.Keys))
	if err != nil {
		return api.BeginResponse{}, err
	}
	c, err := challenge(e.Challenge, nil)
	return api.BeginResponse{Challenge: c, Credential: e.Credential, EncryptedSecret: e.EncryptedSecret}, err
}

func (d *direct) Complete(ctx context.Context, r api.CompleteRequest) (api.CompleteResponse, error) {
	s, err := d.service.CompleteEnrollment(ctx, attested(r.Attested), keysOf(r.Keys), r.Proof)
	return api.CompleteResponse{Sealed: sealed(s)}, err
}

func (d *direct) Commit(ctx context.Context, r api.CommitRequest) (api.CommitResponse, error) {
	c, err := d.service.CommitEnrollment(ctx, attested(r.Attested))
	return api.CommitResponse{Status: string(c.Status)}, err
}

func (d *direct) RekeyChallenge(context.Context) (api.Challenge, error) {
	return challenge(d.service.IssueChallenge(exchange.PurposeRekey))
}

func (d *direct) Rekey(ctx context.Context, r api.RekeyRequest) (api.RekeyResponse, error) {
	s, err := d.service.DeliverRekey(ctx, attested(r.Attested))
	return api.RekeyResponse{Sealed: sealed(s)}, err
}

func (d *direct) KeepHeader(ctx context.Context, r api.HeaderCopyRequest) (api.HeaderCopyResponse, error) {
	return api.HeaderCopyResponse{}, d.service.KeepHeader(ctx, kms.HeaderUpload{Machine: r.Machine, Volume: r.Volume, Version: r.Version, Sealed: r.Copy})
}

func (d *direct) RekeyedChallenge(context.Context) (api.Challenge, error) {
	return challenge(d.service.IssueChallenge(exchange.PurposeRekeyed))
}

func (d *direct) Rekeyed(ctx context.Context, r api.RekeyedRequest) (api.RekeyedResponse, error) {
	s, err := d.service.ReportRekey(ctx, attested(r.Attested))
	return api.RekeyedResponse{Signed: sealed(s)}, err
}

func (d *direct) StageChallenge(context.Context) (api.Challenge, error) {
	return challenge(d.service.IssueChallenge(exchange.PurposeStage))
}

func (d *direct) Stage(ctx context.Context, r api.StageRequest) (api.StageResponse, error) {
	s, err := d.service.Stage(ctx, attested(r.Attested))
	answer := api.StageResponse{Until: &s.Until}
	for _, b := range s.Boots {
		boot := api.StagedBoot{Measurement: hexOf(b.Measurement), Platform: hexOf(b.Platform)}
		if b.Refusal != nil {
			boot.Code, boot.Detail = api.Code(b.Refusal.Reason), b.Refusal.Detail
		}
		answer.Boots = append(answer.Boots, boot)
	}
	return answer, err
}

func hexOf(d [32]byte) string { return hex.EncodeToString(d[:]) }
