package kms

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync/atomic"
	"time"

	"keywright.dev/kms/attest"
	"keywright.dev/kms/audit"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/policy"
	"keywright.dev/kms/recovery"
)

// Store is all that the service needs of a store.
type Store interface {
	Transactor
	Reader
	LogReader
	Sequencer
}

// Policy decides about releases; package policy's engine does.
type Policy interface {
	Release(m policy.Machine, v policy.Volume, b policy.Boot) policy.Decision
	Stage(m policy.Machine, b policy.Boot) policy.Decision
	AddVolume(m policy.Machine, b policy.Boot) policy.Decision
	UseKeys(m policy.Machine, k policy.Keyring, b policy.Boot) policy.Decision
}

// TrustByPerson means that nobody vouches for an EK until an operator does.
const TrustByPerson = "person"

// Config is what a [Service] is made of. All fields are required.
type Config struct {
	Store      Store
	Keys       *Keys
	Challenges *Challenges
	// Identities are the service identity keys that guests pin, Identity what makes
	// another.
	Identities *Identities
	Identity   IdentityMaker
	// Log signs entries and heads of the audit log.
	Log *audit.Signer
	// Trust says why an endorsement key is believed: a text for people, or
	// [TrustByPerson] where an operator must compare its hash. Its error says
	// what is wrong with the certificate.
	Trust func(ek exchange.EK, certificate []byte, now time.Time) (string, error)
	// Recovery is whom copies of new recovery keys are encrypted to; may be nobody.
	Recovery recovery.Recipients
	// Policy returns the policy in force.
	Policy func() Policy
	Clock  func() time.Time
	Random io.Reader
	// ReencryptRate is the most bytes that a machine reencrypts in a second; 0: as fast
	// as it goes.
	ReencryptRate uint64
}

// Service is the domain. It is safe for concurrent use.
type Service struct {
	Config
	appraiser *attest.Appraiser
	// keyLimits are the key API's: what applications ask must not use up what a
	// boot needs.
	limits, keyLimits *machineLimits
	aggregates        *aggregates
	maxPending        int64
	ordered           atomic.Pointer[func(machine string)]
}

// rememberedLogs bounds the cache of event logs: a fleet boots few images.
const rememberedLogs = 256

// New returns a service.
func New(c Config) (*Service, error) {
	if c.Identities == nil {
		return nil, errors.New("making a service: it has no identity key")
	}
	return &Service{
		Config: c, appraiser: attest.NewAppraiser(rememberedLogs), limits: newMachineLimits(c.Clock, machineEvery, machineBurst),
		keyLimits: newMachineLimits(c.Clock, keyEvery, keyBurst), aggregates: newAggregates(),
		maxPending: maxPending,
	}, nil
}

// NotifyOrdered has tell called, in the place of whoever was told before, with each
// machine whose orders change.
func (s *Service) NotifyOrdered(tell func(machine string)) { s.ordered.Store(&tell) }

// ServiceKey returns the fingerprint of the current service identity key.
func (s *Service) ServiceKey() [32]byte { return s.Identities.all()[0].fingerprint }

// Evidence is a quote with what it covers; see api.Evidence.
type Evidence struct {
	Quote, Signature, PCRs, EventLog []byte
}

// Attested is a statement under a quote, with where it came from.
type Attested struct {
	Machine   string
	Challenge []byte
	Token     []byte
	Statement []byte
	Evidence  Evidence

	Source  netip.Addr
	Request string // request id
}

// TPMKeys are the keys of a TPM that enrols.
type TPMKeys struct {
	EK, EKCertificate, AK []byte
}

// Sealed is a release that only the statement's recipient key opens, under the
// service identity key's signature.
type Sealed struct {
	Response, Signature, ServiceKey []byte
}

// IssueChallenge makes a challenge for one step.
func (s *Service) IssueChallenge(purpose exchange.Purpose) (Challenge, error) {
	return s.Challenges.Issue(purpose)
}

// seal seals and signs a release for the statement. It is called after the
// transaction that decided it is durable.
func (s *Service) seal(v *verified, release *exchange.Release) (Sealed, error) {
	response, err := exchange.SealRelease(v.recipient, v.raw, release)
	if err != nil {
		return Sealed{}, err
	}
	return s.sign(v.statement.ServiceKey, v.raw, response)
}

// sign has the service identity key that a statement names sign the answer to it.
func (s *Service) sign(named [32]byte, statement, response []byte) (Sealed, error) {
	by := s.Identities.find(named)
	if by == nil {
		return Sealed{}, fmt.Errorf("signing an answer: the service identity key was retired meanwhile: %w", ErrUnavailable)
	}
	signature, err := exchange.SignResponse(by.signer, statement, response)
	if err != nil {
		return Sealed{}, err
	}
	return Sealed{Response: response, Signature: signature, ServiceKey: by.spki}, nil
}

// random32 returns 32 random bytes.
func (s *Service) random32() ([32]byte, error) {
	var b [32]byte
	if _, err := io.ReadFull(s.Random, b[:]); err != nil {
		return b, fmt.Errorf("reading random bytes: %w", err)
	}
	return b, nil
}

// transact runs decide in a transaction. A refusal that decide returns is
// committed with its outcome and is then the error.
func (s *Service) transact(ctx context.Context, key Key, decide func(State) (Outcome, *Refusal, error)) error {
	var refused *Refusal
	err := s.decide(ctx, key, func(state State) (Outcome, error) {
		outcome, refusal, err := decide(state)
		refused = refusal
		return outcome, err
	})
	switch {
	case errors.Is(err, ErrRedeemed):
		return refuseReplay() // a race that the store decided
	case err != nil:
		return err
	case refused != nil:
		return refused
	default:
		return nil
	}
}

// decide runs decide in a transaction, and again once a keyring version is open
// that it turned out to need. An operator's order to drop all leases, which other
// replicas learn of by the store alone, is obeyed before.
func (s *Service) decide(ctx context.Context, key Key, decide func(State) (Outcome, error)) error {
	return s.Keys.opened(ctx, func() error {
		return s.Store.Transact(ctx, key, func(state State) (Outcome, error) {
			s.Keys.Epoch(state.LeaseEpoch)
			return decide(state)
		})
	})
}
