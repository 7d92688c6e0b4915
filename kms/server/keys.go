package server

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
)

func keyChallengeOf(c kms.KeyChallenge) api.KeyChallenge {
	plain := challengeOf(c.Challenge)
	out := api.KeyChallenge{
		Challenge: plain.Challenge, Token: plain.Token, Expires: plain.Expires, Selection: plain.Selection, Recipient: c.Recipient,
	}
	for _, s := range c.Signed {
		out.Signed = append(out.Signed, api.KeySignature(s))
	}
	return out
}

func (g *guests) keyChallenge(context.Context, call, *api.ChallengeRequest) (api.KeyChallenge, error) {
	issued, err := g.server.Service.IssueKeyChallenge()
	return keyChallengeOf(issued), err
}

func (g *guests) useKeys(ctx context.Context, c call, r *api.KeyRequest) (api.KeyAnswer, error) {
	sealed, err := g.server.Service.UseKeys(ctx, attestedOf(r.Attested, c), r.Request)
	return api.KeyAnswer{Sealed: api.Sealed(sealed)}, err
}

type (
	keyChallengeInput struct {
		Body api.ChallengeRequest
	}
	keyCallInput struct {
		RefInput
		Body api.KeyCall
	}
)

// keyOperation is a route of the key API.
type keyOperation struct {
	path, action, summary string
	operation             exchange.KeyOperation
}

func keyOperations() []keyOperation {
	return []keyOperation{
		{api.PathKeyWrap, kms.ActionKeyWrap, "Wrap plaintexts under a keyring.", exchange.KeyWrap},
		{api.PathKeyUnwrap, kms.ActionKeyUnwrap, "Unwrap what a keyring wrapped.", exchange.KeyUnwrap},
		{api.PathKeyRewrap, kms.ActionKeyRewrap, "Move what a keyring wrapped to its current version.", exchange.KeyRewrap},
		{api.PathKeyDataKey, kms.ActionKeyDataKey, "Make data keys, in the clear and wrapped under a keyring.", exchange.KeyDataKey},
	}
}

func (o *operators) addKeys() {
	register(o, operation[keyChallengeInput, struct{}, api.KeyChallenge]{
		Route: Route{Method: http.MethodPost, Path: api.PathKeyChallenge, Action: "key.challenge", Summary: "Ask for the challenge of a call on keys, with the key that it is sealed to."},
		find:  nothing[keyChallengeInput],
		act: func(context.Context, struct{}, *keyChallengeInput) (api.KeyChallenge, error) {
			issued, err := o.server.Service.IssueKeyChallenge()
			return keyChallengeOf(issued), err
		},
	})
	for _, k := range keyOperations() {
		o.registerKeys(k)
	}
}

// registerKeys adds a call of the key API, whose body may be larger than that of
// other operators' requests.
func (o *operators) registerKeys(k keyOperation) {
	op := operation[keyCallInput, string, api.KeyAnswer]{
		Route: Route{Listener: OperatorListener, Method: http.MethodPost, Path: k.path, Action: k.action, Summary: k.summary},
		find:  o.findKeyring,
		act: func(ctx context.Context, keyring string, in *keyCallInput) (api.KeyAnswer, error) {
			leave, err := o.server.guests.keys.enter(ctx)
			if err != nil {
				return api.KeyAnswer{}, err
			}
			defer leave()
			sealed, err := o.server.Service.OperateKeys(ctx, stateOf(ctx).operator(), k.operation, keyring, kms.KeyCall(in.Body))
			return api.KeyAnswer{Sealed: api.Sealed(sealed)}, err
		},
	}
	o.routes = append(o.routes, op.Route)
	described := o.describe(op.Route)
	described.MaxBodyBytes = api.MaxKeyRequest
	huma.Register(o.api, described, func(ctx context.Context, in *keyCallInput) (*reply[api.KeyAnswer], error) {
		answer, err := perform(ctx, o, op, in)
		if err != nil {
			return nil, failureOf(err)
		}
		return &reply[api.KeyAnswer]{answer}, nil
	})
}

// findKeyring finds a keyring by its name.
func (o *operators) findKeyring(_ context.Context, in *keyCallInput) (string, object, error) {
	if _, err := o.server.Service.Keyring(in.Ref); err != nil {
		return "", object{}, err
	}
	return in.Ref, onKeyring(in.Ref), nil
}
