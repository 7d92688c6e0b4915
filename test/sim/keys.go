package sim

import (
	"context"
	"fmt"

	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
)

// KeyGuest is the key API as machines see it; [api.GuestClient] is one.
type KeyGuest interface {
	KeyChallenge(ctx context.Context) (api.KeyChallenge, error)
	Keys(ctx context.Context, r api.KeyRequest) (api.KeyAnswer, error)
}

// KeyUse is a call of the key API in the making, which a test may falsify before
// it is signed.
type KeyUse struct {
	*exchange.KeyCall
	machine   *Machine
	challenge api.KeyChallenge
	request   exchange.KeyRequest
}

// PrepareKeys asks for a challenge and makes an honest call for it.
func (m *Machine) PrepareKeys(ctx context.Context, g KeyGuest, operation exchange.KeyOperation, keyring string, items ...exchange.KeyItem) (*KeyUse, error) {
	challenge, err := g.KeyChallenge(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking for a challenge: %w", err)
	}
	u := &KeyUse{machine: m, challenge: challenge, request: exchange.KeyRequest{Items: items}}
	u.KeyCall, err = api.OpenKeyCall([][32]byte{m.ServiceKey}, challenge, operation, keyring, &u.request)
	if err != nil {
		return nil, fmt.Errorf("preparing a call: %w", err)
	}
	u.Statement.Machine, u.Statement.ServiceKey = m.TPM.Machine(), m.ServiceKey
	return u, nil
}

// Attest quotes over the statement.
func (u *KeyUse) Attest() (api.KeyRequest, error) {
	r := Request{
		machine: u.machine, Statement: u.Statement,
		Challenge: api.Challenge{Challenge: u.challenge.Challenge, Token: u.challenge.Token},
	}
	attested, err := r.Attest()
	return api.KeyRequest{Attested: attested, Request: u.Sealed}, err
}

// Call sends the request and opens the answer.
func (u *KeyUse) Call(ctx context.Context, g KeyGuest) ([]exchange.KeyResult, error) {
	request, err := u.Attest()
	if err != nil {
		return nil, err
	}
	answer, err := g.Keys(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("using keys: %w", err)
	}
	opened, err := api.CloseKeyCall([][32]byte{u.machine.ServiceKey}, u.KeyCall, request.Statement, answer, &u.request)
	if err != nil {
		return nil, fmt.Errorf("opening the answer: %w", err)
	}
	return opened.Results, nil
}

// UseKeys makes an honest call.
func (m *Machine) UseKeys(ctx context.Context, g KeyGuest, operation exchange.KeyOperation, keyring string, items ...exchange.KeyItem) ([]exchange.KeyResult, error) {
	u, err := m.PrepareKeys(ctx, g, operation, keyring, items...)
	if err != nil {
		return nil, err
	}
	return u.Call(ctx, g)
}
