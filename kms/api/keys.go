package api

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"keywright.dev/kms/exchange"
)

// Paths of the key API. The first two are of the guest listener; what a machine
// does stands in its statement.
const (
	PathGuestKeyChallenge = "/v1/keys/challenge"
	PathGuestKeys         = "/v1/keys"

	PathKeyChallenge = "/v1/key-challenge"
	PathKeyWrap      = "/v1/keys/{ref}/wrap"
	PathKeyUnwrap    = "/v1/keys/{ref}/unwrap"
	PathKeyRewrap    = "/v1/keys/{ref}/rewrap"
	PathKeyDataKey   = "/v1/keys/{ref}/data-key"
)

// KeyChallenge is a challenge for one call of the key API, with the key that the
// request is sealed to.
type KeyChallenge struct {
	Challenge []byte    `json:"challenge"`
	Token     []byte    `json:"token"`
	Expires   time.Time `json:"expires"`
	// Selection is the PCRs that a machine quotes, as in [Challenge].
	Selection []byte `json:"selection"`
	// Recipient is an HPKE public key; see exchange.NewKeyCall.
	Recipient []byte `json:"recipient"`
	// Signed are the signatures of the service identity keys, the current one's first.
	Signed []KeySignature `json:"signed"`
}

// KeySignature is a service identity key's over challenge and recipient.
type KeySignature struct {
	Signature  []byte `json:"signature"`
	ServiceKey []byte `json:"service_key"` // SubjectPublicKeyInfo
}

// KeyRequest is a machine's call of the key API.
type KeyRequest struct {
	Attested
	// Request is sealed; the statement's details hold its hash.
	Request []byte `json:"request"`
}

// KeyCall is an operator's call of the key API: as a machine's, without evidence.
type KeyCall struct {
	Challenge []byte `json:"challenge"`
	Token     []byte `json:"token"`
	Statement []byte `json:"statement"`
	Request   []byte `json:"request"`
}

// KeyAnswer answers both: Response is a sealed answer of package exchange, with a
// result for each item.
type KeyAnswer struct {
	Sealed Sealed `json:"sealed"`
}

// KeyChallenge asks for the challenge of a machine's call.
func (g *GuestClient) KeyChallenge(ctx context.Context) (KeyChallenge, error) {
	return post[KeyChallenge](ctx, g.c, PathGuestKeyChallenge, ChallengeRequest{})
}

// Keys makes a machine's call.
func (g *GuestClient) Keys(ctx context.Context, r KeyRequest) (KeyAnswer, error) {
	c := g.c
	c.limit = MaxKeyAnswer
	return post[KeyAnswer](ctx, c, PathGuestKeys, r)
}

// Keys has the service wrap, unwrap or rewrap the items of a request under a
// keyring, or make data keys. There is a result for each item, in their order: an
// error for the whole says that none was worked on. The caller wipes both.
//
// The socket's owner is who the caller trusts; what goes over it is sealed all
// the same, so that no buffer on the way holds a secret.
func (o *OperatorClient) Keys(ctx context.Context, operation exchange.KeyOperation, keyring string, r *exchange.KeyRequest) (*exchange.KeyAnswer, error) {
	challenge, err := post[KeyChallenge](ctx, o.c, PathKeyChallenge, ChallengeRequest{})
	if err != nil {
		return nil, err
	}
	var pins [][32]byte
	for _, s := range challenge.Signed[:min(1, len(challenge.Signed))] {
		pins = append(pins, exchange.Fingerprint(s.ServiceKey))
	}
	call, err := OpenKeyCall(pins, challenge, operation, keyring, r)
	if err != nil {
		return nil, err
	}
	statement, err := call.Statement.Marshal()
	if err != nil {
		return nil, err
	}
	path, err := keyPath(operation)
	if err != nil {
		return nil, err
	}
	answer, err := post[KeyAnswer](ctx, o.c, at(path, keyring), KeyCall{
		Challenge: challenge.Challenge, Token: challenge.Token, Statement: statement, Request: call.Sealed,
	})
	if err != nil {
		return nil, err
	}
	return CloseKeyCall(pins, call, statement, answer, r)
}

// OpenKeyCall verifies a challenge's recipient against the pins and seals the
// request to it. The statement names the pin that signed; the caller fills in who
// asks.
func OpenKeyCall(pins [][32]byte, challenge KeyChallenge, operation exchange.KeyOperation, keyring string, r *exchange.KeyRequest) (*exchange.KeyCall, error) {
	if len(challenge.Challenge) != 32 {
		return nil, errors.New("the service's challenge has not 32 bytes")
	}
	nonce := [32]byte(challenge.Challenge)
	err := exchange.ErrServiceKey
	for _, s := range challenge.Signed {
		if err = exchange.VerifyKeyRecipient(pins, s.ServiceKey, nonce, challenge.Recipient, s.Signature); err != nil {
			continue
		}
		call, err := exchange.NewKeyCall(nonce, challenge.Recipient, operation, keyring, r)
		if err != nil {
			return nil, err
		}
		call.Statement.ServiceKey = exchange.Fingerprint(s.ServiceKey)
		return call, nil
	}
	return nil, fmt.Errorf("the service's recipient key: %w", err)
}

// CloseKeyCall verifies and opens the answer to a call.
func CloseKeyCall(pins [][32]byte, call *exchange.KeyCall, statement []byte, answer KeyAnswer, r *exchange.KeyRequest) (*exchange.KeyAnswer, error) {
	sealed := answer.Sealed
	if err := exchange.VerifyResponse(pins, sealed.ServiceKey, statement, sealed.Response, sealed.Signature); err != nil {
		return nil, err
	}
	return call.Open(statement, sealed.Response, r)
}

func keyPath(operation exchange.KeyOperation) (string, error) {
	for _, path := range []string{PathKeyWrap, PathKeyUnwrap, PathKeyRewrap, PathKeyDataKey} {
		if strings.HasSuffix(path, "/"+string(operation)) {
			return path, nil
		}
	}
	return "", fmt.Errorf("there is no operation %q on keys", operation)
}
