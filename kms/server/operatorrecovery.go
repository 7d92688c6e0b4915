package server

import (
	"context"
	"net/http"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
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
	headerCopyInput struct {
		RefInput
		Body api.DiscloseHeaderCopy
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
	register(o, operation[recoveryKeyInput, *kms.Volume, api.Sealed]{
		Route: Route{
			Method: http.MethodPost, Path: api.PathVolumeRecoveryKey, Action: kms.ActionDiscloseRecovery,
			Summary: "Disclose a volume's recovery key, sealed to the caller's own key.",
		},
		find: func(ctx context.Context, in *recoveryKeyInput) (*kms.Volume, object, error) {
			return o.findVolume(ctx, &in.RefInput)
		},
		act: o.recoveryKey,
	})
	register(o, operation[headerCopyInput, *kms.Volume, api.HeaderCopy]{
		Route: Route{
			Method: http.MethodPost, Path: api.PathVolumeHeaderCopy, Action: kms.ActionDiscloseHeader,
			Summary: "Disclose the copy of a volume's header from before the rekey that is under way, its key sealed to the caller's own key.",
		},
		find: func(ctx context.Context, in *headerCopyInput) (*kms.Volume, object, error) {
			return o.findVolume(ctx, &in.RefInput)
		},
		act: o.headerCopy,
	})
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

// recoveryKey is allowed and recorded before it is sealed.
func (o *operators) recoveryKey(ctx context.Context, v *kms.Volume, in *recoveryKeyInput) (api.Sealed, error) {
	sealed, err := o.server.Service.SealRecoveryKey(ctx, stateOf(ctx).operator(), v, in.Body.Version, in.Ref, in.Body.Recipient)
	return api.Sealed(sealed), err
}

func (o *operators) headerCopy(ctx context.Context, v *kms.Volume, in *headerCopyInput) (api.HeaderCopy, error) {
	kept, sealed, err := o.server.Service.DiscloseHeader(ctx, stateOf(ctx).operator(), v, in.Ref, in.Body.Recipient)
	if err != nil {
		return api.HeaderCopy{}, err
	}
	return api.HeaderCopy{
		Volume: v.ID, UUID: v.UUID, Version: kept.Version, Created: kept.Created, Copy: kept.Sealed, Key: api.Sealed(sealed),
	}, nil
}
