package server

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
	"keywright.dev/kms/secret"
)

type (
	recoveryCopiesInput struct {
		PageInput
		Volume string `query:"volume" maxLength:"256" doc:"Only the copy of this volume's recovery key."`
	}
	recoveryKeyInput struct {
		RefInput
		Body api.DiscloseRecoveryKey
	}
)

func (o *operators) addRecovery() {
	register(o, operation[recoveryCopiesInput, struct{}, api.Page[api.RecoveryCopy]]{
		Route: Route{
			Method: http.MethodGet, Path: api.PathRecoveryCopies, Action: kms.ActionExportCopies,
			Summary: "Export recovery keys as they were encrypted with age. A page may hold fewer than it was asked for.",
		},
		find: nothing[recoveryCopiesInput], act: o.recoveryCopies,
	})
	o.registerRecoveryKey()
}

func (o *operators) recoveryCopies(ctx context.Context, _ struct{}, in *recoveryCopiesInput) (api.Page[api.RecoveryCopy], error) {
	page := api.Page[api.RecoveryCopy]{Items: []api.RecoveryCopy{}}
	by := stateOf(ctx).operator()
	if in.Volume != "" {
		v, _, err := o.findVolume(ctx, &RefInput{in.Volume})
		if err != nil {
			return page, err
		}
		found, err := o.server.Service.RecoveryCopyOf(ctx, by, v)
		if err != nil {
			return page, err
		}
		page.Items = append(page.Items, recoveryCopyOf(found))
		return page, nil
	}
	volumes, err := o.server.Store.Volumes(ctx, "", in.After, in.Limit)
	if err != nil {
		return page, err
	}
	copies, err := o.server.Service.RecoveryCopies(ctx, by, volumes)
	if err != nil {
		return page, err
	}
	for i := range copies {
		page.Items = append(page.Items, recoveryCopyOf(&copies[i]))
	}
	if len(volumes) >= in.Limit {
		page.Next = volumes[len(volumes)-1].ID
	}
	return page, nil
}

func recoveryCopyOf(c *kms.RecoveryCopy) api.RecoveryCopy {
	return api.RecoveryCopy{
		Volume: c.Volume.ID, Machine: c.Volume.Machine, UUID: c.Volume.UUID, Version: c.Version, Created: c.Created, Age: c.Age,
	}
}

// registerRecoveryKey adds the disclosure, whose answer is the key alone: it goes
// from a secret to the connection, and is never a value that could be logged.
func (o *operators) registerRecoveryKey() {
	route := Route{
		Listener: OperatorListener, Method: http.MethodPost, Path: api.PathVolumeRecoveryKey, Action: kms.ActionDiscloseRecovery,
		Summary: "Disclose a volume's recovery key.",
	}
	o.routes = append(o.routes, route)
	described := o.describe(route)
	described.Responses["200"] = &huma.Response{
		Description: "The recovery key, without a line feed; see docs/recovery.md.",
		Content:     map[string]*huma.MediaType{"text/plain": {Schema: &huma.Schema{Type: huma.TypeString}}},
	}
	huma.Register(o.api, described, func(ctx context.Context, in *recoveryKeyInput) (*huma.StreamResponse, error) {
		key, err := o.recoveryKey(ctx, route, in)
		if err != nil {
			return nil, failureOf(err)
		}
		return &huma.StreamResponse{Body: func(hctx huma.Context) {
			defer key.Wipe()
			hctx.SetHeader("Content-Type", "text/plain; charset=us-ascii")
			if _, err := hctx.BodyWriter().Write(key.Expose()); err != nil {
				panic(http.ErrAbortHandler)
			}
		}}, nil
	})
}

// recoveryKey is allowed and recorded before the first byte leaves.
func (o *operators) recoveryKey(ctx context.Context, route Route, in *recoveryKeyInput) (secret.Bytes, error) {
	stateOf(ctx).route = route
	v, on, err := o.findVolume(ctx, &in.RefInput)
	if err != nil {
		return secret.Bytes{}, err
	}
	if err := o.authorize(ctx, route.Action, on); err != nil {
		return secret.Bytes{}, err
	}
	return o.server.Service.DiscloseRecoveryKey(ctx, stateOf(ctx).operator(), v)
}
