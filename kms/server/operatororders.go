package server

import (
	"context"
	"net/http"
	"time"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
)

type (
	rekeyVolumeInput struct {
		RefInput
		DryRunInput
		Body api.RekeyVolume
	}
	reencryptVolumeInput struct {
		RefInput
		DryRunInput
		Body api.ReencryptVolume
	}
	loseKeyslotsInput struct {
		RefInput
		DryRunInput
		Body api.LoseKeyslots
	}
	withdrawRekeyInput struct {
		RefInput
		DryRunInput
		Body api.WithdrawRekey
	}
	destroySecretInput struct {
		RefInput
		DryRunInput
		Body api.DestroySecret
	}
)

func (o *operators) addOrders() {
	register(o, operation[PageInput, struct{}, api.Page[api.Order]]{
		Route: Route{Method: http.MethodGet, Path: api.PathOrders, Action: "order.list", Summary: "List the rekeys and reencryptions that are under way."},
		find:  nothing[PageInput], act: o.listOrders,
	})
	register(o, operation[rekeyVolumeInput, *kms.Volume, api.Order]{
		Route: Route{Method: http.MethodPost, Path: api.PathVolumeRekey, Action: kms.ActionRekey, Summary: "Have a volume's machine replace its secret and keyslot."},
		find: func(ctx context.Context, in *rekeyVolumeInput) (*kms.Volume, object, error) {
			return o.findVolume(ctx, &in.RefInput)
		},
		act: func(ctx context.Context, v *kms.Volume, in *rekeyVolumeInput) (api.Order, error) {
			return orderOf(o.server.Service.OrderRekey(ctx, in.operator(ctx), v, in.Body.Reason, in.Body.AtBoot))
		},
	})
	register(o, operation[reencryptVolumeInput, *kms.Volume, api.Order]{
		Route: Route{Method: http.MethodPost, Path: api.PathVolumeReencrypt, Action: kms.ActionReencrypt, Summary: "Have a volume's machine put its data under a new volume key."},
		find: func(ctx context.Context, in *reencryptVolumeInput) (*kms.Volume, object, error) {
			return o.findVolume(ctx, &in.RefInput)
		},
		act: func(ctx context.Context, v *kms.Volume, in *reencryptVolumeInput) (api.Order, error) {
			return orderOf(o.server.Service.OrderReencrypt(ctx, in.operator(ctx), v, in.Body.Reason))
		},
	})
	register(o, operation[loseKeyslotsInput, *kms.Volume, api.Order]{
		Route: Route{Method: http.MethodPost, Path: api.PathVolumeLose, Action: kms.ActionLoseKeyslots, Summary: "Agree to the loss of the keyslots that a reencryption names."},
		find: func(ctx context.Context, in *loseKeyslotsInput) (*kms.Volume, object, error) {
			return o.findVolume(ctx, &in.RefInput)
		},
		act: func(ctx context.Context, v *kms.Volume, in *loseKeyslotsInput) (api.Order, error) {
			return orderOf(o.server.Service.LoseKeyslots(ctx, in.operator(ctx), v, in.Body.Reason))
		},
	})
	register(o, operation[withdrawRekeyInput, *kms.Volume, api.Order]{
		Route: Route{Method: http.MethodPost, Path: api.PathVolumeWithdraw, Action: kms.ActionWithdrawRekey, Summary: "Take back a rekey that was not committed, or a reencryption that has not begun."},
		find: func(ctx context.Context, in *withdrawRekeyInput) (*kms.Volume, object, error) {
			return o.findVolume(ctx, &in.RefInput)
		},
		act: func(ctx context.Context, v *kms.Volume, in *withdrawRekeyInput) (api.Order, error) {
			return orderOf(o.server.Service.WithdrawRekey(ctx, in.operator(ctx), v, in.Body.Reason))
		},
	})
	register(o, operation[destroySecretInput, *kms.Volume, api.SecretVersion]{
		Route: Route{Method: http.MethodPost, Path: api.PathVolumeDestroy, Action: kms.ActionDestroySecret, Summary: "Destroy a secret that a rekey replaced: images of the disk from before open no more."},
		find: func(ctx context.Context, in *destroySecretInput) (*kms.Volume, object, error) {
			return o.findVolume(ctx, &in.RefInput)
		},
		act: func(ctx context.Context, v *kms.Volume, in *destroySecretInput) (api.SecretVersion, error) {
			destroyed, err := o.server.Service.DestroySecret(ctx, in.operator(ctx), v, in.Body.Version, in.Body.Reason)
			if err != nil {
				return api.SecretVersion{}, err
			}
			return secretOf(destroyed), nil
		},
	})
}

func (o *operators) listOrders(ctx context.Context, _ struct{}, in *PageInput) (api.Page[api.Order], error) {
	list, err := o.server.Store.Orders(ctx, in.After, in.Limit)
	return pageOf(list, in.Limit, toOrder, func(v *kms.Order) string { return v.Volume }), err
}

// orderOfVolume returns the order of a volume that is under way; nil where none is.
func (o *operators) orderOfVolume(ctx context.Context, v *kms.Volume) (*api.Order, error) {
	orders, err := o.server.Store.OrdersOf(ctx, v.Machine)
	if err != nil {
		return nil, err
	}
	for i := range orders {
		if orders[i].Volume == v.ID {
			order := toOrder(&orders[i])
			return &order, nil
		}
	}
	return nil, nil //nolint:nilnil // none is no error
}

func orderOf(order *kms.Order, err error) (api.Order, error) {
	if err != nil {
		return api.Order{}, err
	}
	return toOrder(order), nil
}

func toOrder(o *kms.Order) api.Order {
	order := api.Order{
		Volume: o.Volume, Machine: o.Machine, Kind: string(o.Kind), Status: string(o.Status), AtBoot: o.AtBoot, From: o.From, Version: o.Version, Withdrawn: o.Withdrawn,
		Reason: o.Reason, Created: o.Created, By: o.By, Deliveries: o.Deliveries, Delivered: stamp(o.Delivered),
		Fault: o.Fault, Faults: o.Faults, Reported: stamp(o.Reported), Waits: len(o.Lost) > 0 && !o.Agreed,
		HeaderKept: stamp(o.HeaderKept),
	}
	order.Lost = keyslotsOf(o.Lost)
	if p := o.Progress; !p.At.IsZero() {
		order.Progress = &api.ReencryptionProgress{Done: p.Done, Total: p.Total, Rate: p.Rate, Left: int64(p.Left / time.Second), At: p.At}
	}
	return order
}

func keyslotsOf(list []kms.Keyslot) (slots []api.LUKSSlot) {
	for _, s := range list {
		slots = append(slots, api.LUKSSlot{ID: s.ID, KDF: s.KDF, Priority: s.Priority, Mark: s.Mark})
	}
	return slots
}
