package kms

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"

	"keywright.dev/kms/audit"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/policy"
	"keywright.dev/kms/secret"
)

// The actions of the key API: of operators one for each operation, of machines
// one.
const (
	ActionKeyWrap    = "key.wrap"
	ActionKeyUnwrap  = "key.unwrap"
	ActionKeyRewrap  = "key.rewrap"
	ActionKeyDataKey = "key.datakey"
	ActionKeyUse     = "key.use"
)

// KeyChallenge is a challenge with the public key that requests under it are
// sealed to, under the signature of each service identity key: who asks has not
// said which of them it pins.
type KeyChallenge struct {
	Challenge
	Recipient []byte
	Signed    []KeySignature // the current one's first
}

// KeySignature is a service identity key's over challenge and recipient.
type KeySignature struct{ Signature, ServiceKey []byte }

// IssueKeyChallenge makes a challenge for one call of the key API.
func (s *Service) IssueKeyChallenge() (KeyChallenge, error) {
	challenge, err := s.Challenges.Issue(exchange.PurposeKey)
	if err != nil {
		return KeyChallenge{}, err
	}
	recipient, err := s.Challenges.recipient(challenge.Nonce, challenge.Token)
	if err != nil {
		return KeyChallenge{}, err
	}
	c := KeyChallenge{Challenge: challenge, Recipient: recipient.PublicKey()}
	for _, by := range s.Identities.all() {
		signature, err := exchange.SignKeyRecipient(by.signer, challenge.Nonce, c.Recipient)
		if err != nil {
			return KeyChallenge{}, err
		}
		c.Signed = append(c.Signed, KeySignature{signature, by.spki})
	}
	return c, nil
}

const recipientLabel = "keywright/key-recipient/v1"

// recipient derives the key pair of a challenge from the key that made its token:
// any replica can, and nobody can any more once that key is gone.
func (c *Challenges) recipient(nonce [32]byte, token []byte) (*exchange.Recipient, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	key, ok := c.find(token)
	if !ok {
		return nil, refuse(ReasonChallenge, "the challenge is not one of this service and step")
	}
	mac := hmac.New(sha256.New, key.key.Expose())
	mac.Write([]byte(recipientLabel))
	mac.Write([]byte{0})
	mac.Write(nonce[:])
	seed := secret.New(mac.Sum(nil))
	defer seed.Wipe()
	return exchange.DeriveRecipient(seed)
}

// KeyCall is a sealed call of the key API as it came.
type KeyCall struct {
	Challenge, Token []byte
	// Statement has purpose key; Request is sealed under the challenge.
	Statement, Request []byte
}

// OperateKeys answers an operator's call on a keyring. What it wraps belongs to no
// machine, and what belongs to one it does not open. That it was done is durable
// before the answer is sealed.
func (s *Service) OperateKeys(ctx context.Context, by Operator, operation exchange.KeyOperation, keyring string, c KeyCall) (Sealed, error) {
	redemption, err := s.Challenges.Check(exchange.PurposeKey, c.Challenge, c.Token)
	if err != nil {
		return Sealed{}, err
	}
	statement, refusal := freshStatement(exchange.PurposeKey, &Attested{Challenge: c.Challenge, Statement: c.Statement})
	if refusal == nil {
		refusal = s.checkStatement(statement)
	}
	if refusal != nil {
		return Sealed{}, refusal
	}
	recipient, err := exchange.ParseRecipientKey(statement.Recipient)
	if err != nil {
		return Sealed{}, refuse(ReasonMalformed, "the recipient key in the statement is not one")
	}
	request, details, refusal := s.openKeyRequest(statement, c.Token, c.Request)
	if refusal != nil {
		return Sealed{}, refusal
	}
	defer request.Wipe()
	if details.Operation != operation || details.Keyring != keyring {
		return Sealed{}, refuse(ReasonMalformed, "operation or keyring in the statement is not that of the path")
	}
	if _, err := s.Keyring(keyring); err != nil {
		return Sealed{}, err
	}
	work := s.keyWork(details)
	if err := work.run(ctx, request.Items); err != nil {
		return Sealed{}, err
	}
	defer work.answer.Wipe()
	d := by.draft(operatorAction(operation), "", keyringObject(keyring))
	work.record(&d, request.Items)
	err = s.transact(ctx, Key{Challenge: &redemption.Challenge}, func(state State) (Outcome, *Refusal, error) {
		if state.Redeemed {
			return Outcome{}, nil, refuseReplay()
		}
		out, err := s.entered(Outcome{Redeem: &redemption, Uses: work.uses(s)}, d, audit.Done, nil)
		return out, nil, err
	})
	if err != nil {
		return Sealed{}, fmt.Errorf("%s keyring/%s: %w", operatorAction(operation), keyring, err)
	}
	return s.sealAnswer(statement.ServiceKey, recipient, c.Statement, &work.answer)
}

func operatorAction(operation exchange.KeyOperation) string {
	switch operation {
	case exchange.KeyWrap:
		return ActionKeyWrap
	case exchange.KeyUnwrap:
		return ActionKeyUnwrap
	case exchange.KeyRewrap:
		return ActionKeyRewrap
	default:
		return ActionKeyDataKey
	}
}

func keyringObject(name string) string { return "keyring/" + name }

// Keyring finds a keyring that the key API may use, and returns its current
// version.
func (s *Service) Keyring(name string) (uint32, error) {
	version, ok := s.Keys.currentVersion(name)
	switch {
	case name == SystemKeyring:
		return 0, disallow("keyring/%s wraps the service's own keys and nothing else: name another one", SystemKeyring)
	case !ok:
		return 0, &NotFoundError{"keyring", name}
	default:
		return version, nil
	}
}

func (s *Service) keyWork(details exchange.KeyDetails) *keyWork {
	return &keyWork{
		keys: s.Keys, operation: details.Operation, keyring: details.Keyring,
		random: func(n int) (secret.Bytes, error) { return secret.Random(s.Random, n) },
	}
}

// openKeyRequest opens the request beside a statement, whose challenge was
// recognised.
func (s *Service) openKeyRequest(statement *exchange.Statement, token, sealed []byte) (*exchange.KeyRequest, exchange.KeyDetails, *Refusal) {
	details, err := exchange.ParseDetails[exchange.KeyDetails](statement.Details)
	if err != nil || !knownOperation(details.Operation) {
		return nil, details, refuse(ReasonMalformed, "the details of the statement cannot be parsed")
	}
	if len(statement.Volumes) > 0 {
		return nil, details, refuse(ReasonMalformed, "the statement names volumes")
	}
	recipient, err := s.Challenges.recipient(statement.Challenge, token)
	if err != nil {
		return nil, details, refuse(ReasonChallenge, "the challenge is not one of this service and step")
	}
	request, err := recipient.OpenKeyRequest(statement, details, sealed)
	if err != nil {
		return nil, details, refuse(ReasonMalformed, "the sealed request does not open, or is not of the form and within the bounds of one")
	}
	return request, details, nil
}

func knownOperation(operation exchange.KeyOperation) bool {
	for _, known := range exchange.KeyOperations() {
		if operation == known {
			return true
		}
	}
	return false
}

func (s *Service) sealAnswer(named [32]byte, recipient exchange.RecipientKey, statement []byte, answer *exchange.KeyAnswer) (Sealed, error) {
	response, err := exchange.SealKeyAnswer(recipient, statement, answer)
	if err != nil {
		return Sealed{}, err
	}
	return s.sign(named, statement, response)
}

// UseKeys answers a running machine's call. What it wraps opens for the TPM keys
// that verified this quote alone, and it gets nothing but in a boot that had its
// keys from here and is still approved.
func (s *Service) UseKeys(ctx context.Context, a Attested, request []byte) (Sealed, error) {
	u, err := s.beginUse(ctx, a, request)
	if err != nil {
		return Sealed{}, s.unproven(err, a.Source)
	}
	if u.request != nil {
		defer u.request.Wipe()
		defer u.work.answer.Wipe()
	}
	if err := s.transact(ctx, u.key(&u.attested, &u.redemption), u.decide); err != nil {
		return Sealed{}, err
	}
	return s.sealAnswer(u.statement.ServiceKey, u.recipient, u.raw, &u.work.answer)
}

// keyUsing is one call of a machine under way.
type keyUsing struct {
	*verified
	service    *Service
	attested   Attested
	redemption Redemption
	request    *exchange.KeyRequest
	work       *keyWork
}

// beginUse does the work before the transaction, in which boots wait for their
// turn: what is not allowed there is wiped.
func (s *Service) beginUse(ctx context.Context, a Attested, sealed []byte) (*keyUsing, error) {
	v, redemption, err := s.verifyKnown(ctx, exchange.PurposeKey, &a)
	if err != nil {
		return nil, err
	}
	u := &keyUsing{verified: v, service: s, attested: a, redemption: redemption}
	if v.refusal != nil {
		return u, nil
	}
	var details exchange.KeyDetails
	if u.request, details, v.refusal = s.openKeyRequest(v.statement, a.Token, sealed); v.refusal != nil {
		return u, nil
	}
	u.work = s.keyWork(details)
	u.work.machine, u.work.binding = a.Machine, v.binding[:]
	if _, err := s.Keyring(details.Keyring); err != nil {
		v.refusal = refuse(ReasonKeyring, "there is no keyring of that name for machines")
		return u, nil
	}
	if err := u.work.run(ctx, u.request.Items); err != nil {
		u.request.Wipe()
		return nil, err
	}
	return u, nil
}

func (u *keyUsing) decide(state State) (Outcome, *Refusal, error) {
	if state.Machine == nil || !bytes.Equal(state.Machine.AK, u.ak.Public) {
		return Outcome{}, nil, fmt.Errorf("deciding about the use of keys: the machine changed meanwhile: %w", ErrUnavailable)
	}
	d := machineDraft(ActionKeyUse, &u.attested)
	if state.Redeemed {
		return u.service.refused(Outcome{}, d, refuseReplay())
	}
	out := Outcome{Redeem: &u.redemption}
	if refusal := u.judge(&state, &d); refusal != nil {
		return u.service.refused(out, d, refusal)
	}
	u.work.record(&d, u.request.Items)
	out.Uses = u.work.uses(u.service)
	out, err := u.service.entered(out, d, audit.Allowed, nil)
	return out, nil, err
}

func (u *keyUsing) judge(state *State, d *draft) *Refusal {
	if refusal := u.judgeReleased(state, d); refusal != nil {
		return refusal
	}
	boot := u.runningBoot(&u.attested, state, u.service.Clock())
	ask := func(p Policy, m policy.Machine, b policy.Boot) policy.Decision {
		return p.UseKeys(m, policy.Keyring{Name: u.work.keyring}, b)
	}
	return judgeRunning(state, boot, ask, u.service.Policy(), d)
}
