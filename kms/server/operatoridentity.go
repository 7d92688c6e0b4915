package server

import (
	"context"
	"errors"
	"net/http"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
)

type (
	rotateIdentityInput struct{ DryRunInput }
	retireIdentityInput struct {
		DryRunInput
		Body api.RetireIdentity
	}
)

func (o *operators) addIdentity() {
	register(o, operation[noInput, struct{}, api.IdentityCensus]{
		Route: Route{Method: http.MethodGet, Path: api.PathIdentity, Action: "identity.census", Summary: "Count which machines know which service identity keys."},
		find:  nothing[noInput],
		act: func(ctx context.Context, _ struct{}, _ *noInput) (api.IdentityCensus, error) {
			return identityCensusOf(o.server.Service.IdentityCensus(ctx))
		},
	})
	register(o, operation[rotateIdentityInput, struct{}, api.IdentityCensus]{
		Route: Route{Method: http.MethodPost, Path: api.PathIdentityRotate, Action: kms.ActionRotateIdentity, Summary: "Make another service identity key, beside the one that machines know."},
		find:  nothing[rotateIdentityInput],
		act: func(ctx context.Context, _ struct{}, in *rotateIdentityInput) (api.IdentityCensus, error) {
			return identityCensusOf(o.server.Service.RotateIdentity(ctx, in.operator(ctx)))
		},
	})
	register(o, operation[retireIdentityInput, struct{}, api.IdentityCensus]{
		Route: Route{Method: http.MethodPost, Path: api.PathIdentityRetire, Action: kms.ActionRetireIdentity, Summary: "Delete the service identity key before the current one."},
		find:  nothing[retireIdentityInput], act: o.retireIdentity,
	})
}

func (o *operators) retireIdentity(ctx context.Context, _ struct{}, in *retireIdentityInput) (api.IdentityCensus, error) {
	excused, err := o.excused(ctx)
	if err != nil {
		return api.IdentityCensus{}, err
	}
	return identityCensusOf(o.server.Service.RetireIdentity(ctx, in.operator(ctx), in.Body.Key, in.Body.LeaveBehind, excused))
}

// excused returns the ids of the machines that somebody answers for.
func (o *operators) excused(ctx context.Context) ([]string, error) {
	excuses, err := o.server.excuses()
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range excuses {
		m, err := o.server.Service.FindNamed(ctx, e.Machine)
		if errors.Is(err, kms.ErrNotFound) {
			continue // it was forgotten
		}
		if err != nil {
			return nil, err
		}
		ids = append(ids, m.ID)
	}
	return ids, nil
}

func identityCensusOf(c *kms.IdentityCensus, err error) (api.IdentityCensus, error) {
	if err != nil {
		return api.IdentityCensus{}, err
	}
	out := api.IdentityCensus{Machines: c.Machines, Lacking: c.Lacking, Others: c.Others, First: append([]string{}, c.First...), Keys: []api.IdentityKey{}}
	for _, k := range c.Keys {
		out.Keys = append(out.Keys, api.IdentityKey{Fingerprint: k.Fingerprint, Created: k.Created.UTC(), Pinned: k.Pinned})
	}
	return out, nil
}

// serviceKeys tells a guest what to pin.
func (g *guests) serviceKeys(_ context.Context, c call, r *api.ServiceKeysRequest) (api.ServiceKeysResponse, error) {
	list, err := g.server.Service.ServiceKeyList(r.Pin, r.Nonce, c.source)
	return api.ServiceKeysResponse{Keys: bytesOf(list.Keys), Signature: list.Signature, ServiceKey: list.ServiceKey}, err
}

func bytesOf(keys [][32]byte) (list [][]byte) {
	for _, k := range keys {
		list = append(list, k[:])
	}
	return list
}
