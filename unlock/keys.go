package unlock

import (
	"context"
	"errors"
	"time"

	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
)

// KeyService is the key API of a server; [*api.GuestClient] is one.
type KeyService interface {
	KeyChallenge(ctx context.Context) (api.KeyChallenge, error)
	Keys(ctx context.Context, r api.KeyRequest) (api.KeyAnswer, error)
}

// KeyServer is one of the service's servers, as the use of keys asks it.
type KeyServer struct {
	Host string // for people
	KeyService
}

// KeyUse has the service work with keys for the applications of this machine. All
// fields are required.
type KeyUse struct {
	TPM      Attester
	EventLog string // path
	// Servers are asked one after the other: the next where one does not answer.
	Servers []KeyServer
	// Pins are the fingerprints of the service identity key that are accepted.
	Pins      [][32]byte
	Operation exchange.KeyOperation
	Keyring   string
	Clock     Clock
	// Note tells a person what is gone on with.
	Note func(format string, args ...any)
}

const (
	// keyPatience is how long a call is repeated that the service has no room for.
	keyPatience = 2 * time.Minute
	// minKeyWait is the shortest wait before that.
	minKeyWait = time.Second
)

// Call makes one call, again where the service asks to come later. What no server
// said is a [*Failure] with a code of the guest.
func (k *KeyUse) Call(ctx context.Context, r *exchange.KeyRequest) (*exchange.KeyAnswer, error) {
	deadline := k.Clock.Now().Add(keyPatience)
	for {
		answer, err := k.tryAll(ctx, r)
		var failure *Failure
		if !errors.As(err, &failure) || failure.Number/100 != 11 || k.Clock.Now().After(deadline) {
			return answer, err
		}
		if err := k.Clock.Sleep(ctx, max(failure.RetryAfter, minKeyWait)); err != nil {
			return nil, failure
		}
	}
}

func (k *KeyUse) tryAll(ctx context.Context, r *exchange.KeyRequest) (answer *exchange.KeyAnswer, err error) {
	a := asking{pins: 1, note: k.Note}
	for _, server := range k.Servers {
		a.hosts = append(a.hosts, server.Host)
	}
	err = a.persist(ctx, func(ctx context.Context) error {
		answer, err = k.ask(ctx, k.Servers[a.server], r)
		return err
	})
	return answer, err
}

func (k *KeyUse) ask(ctx context.Context, to KeyServer, r *exchange.KeyRequest) (*exchange.KeyAnswer, error) {
	challenge, err := call(ctx, to.Host, to.KeyChallenge)
	if err != nil {
		return nil, err
	}
	made, err := api.OpenKeyCall(k.Pins, challenge, k.Operation, k.Keyring, r)
	if err != nil {
		return nil, fail(CodeUntrusted, err)
	}
	attested, err := attest(k.TPM, k.EventLog, api.Challenge{
		Challenge: challenge.Challenge, Token: challenge.Token, Selection: challenge.Selection,
	}, made.Statement)
	if err != nil {
		return nil, err
	}
	sealed, err := call(ctx, to.Host, func(ctx context.Context) (api.KeyAnswer, error) {
		return to.Keys(ctx, api.KeyRequest{Attested: attested, Request: made.Sealed})
	})
	if err != nil {
		return nil, err
	}
	answer, err := api.CloseKeyCall(k.Pins, made, attested.Statement, sealed, r)
	if err != nil {
		return nil, fail(CodeUntrusted, err)
	}
	return answer, nil
}
