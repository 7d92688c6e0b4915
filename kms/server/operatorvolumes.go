package server

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
	"keywright.dev/kms/policy"
)

type listVolumesInput struct {
	PageInput
	Machine string `query:"machine" maxLength:"256" doc:"Only volumes of this machine."`
	Alarm   string `query:"alarm" enum:"foreign,copied" doc:"Only volumes with an open alarm of this kind."`
}

type acceptVolumeInput struct {
	RefInput
	DryRunInput
	Body api.AcceptVolume
}

func (o *operators) addVolumes() {
	register(o, operation[listVolumesInput, struct{}, api.Page[api.Volume]]{
		Route: Route{Method: http.MethodGet, Path: api.PathVolumes, Action: "volume.list", Summary: "List volumes."},
		find:  nothing[listVolumesInput], act: o.listVolumes,
	})
	register(o, operation[RefInput, *kms.Volume, api.Volume]{
		Route: Route{Method: http.MethodGet, Path: api.PathVolume, Action: "volume.show", Summary: "Show a volume with the versions of its secrets."},
		find:  o.findVolume, act: o.showVolume,
	})
	register(o, operation[acceptVolumeInput, *kms.Volume, api.Volume]{
		Route: Route{Method: http.MethodPost, Path: api.PathVolumeAccept, Action: kms.ActionAcceptVolume, Summary: "Accept the slots and tokens that a volume reported last."},
		find: func(ctx context.Context, in *acceptVolumeInput) (*kms.Volume, object, error) {
			return o.findVolume(ctx, &in.RefInput)
		},
		act: o.acceptVolume,
	})
}

func (o *operators) listVolumes(ctx context.Context, _ struct{}, in *listVolumesInput) (api.Page[api.Volume], error) {
	machine := ""
	if in.Machine != "" {
		m, err := o.server.Service.FindMachine(ctx, in.Machine)
		if err != nil {
			return api.Page[api.Volume]{}, err
		}
		machine = m.ID
	}
	var list []kms.Volume
	var err error
	if in.Alarm != "" && machine == "" {
		list, err = o.server.Store.AlarmedVolumes(ctx, kms.Alarm(in.Alarm), in.After, in.Limit)
	} else {
		list, err = o.server.Store.Volumes(ctx, machine, in.After, in.Limit)
	}
	page := pageOf(list, in.Limit, volumeOf, func(v *kms.Volume) string { return v.ID })
	if in.Alarm != "" {
		page.Items = slices.DeleteFunc(page.Items, func(v api.Volume) bool { return !slices.Contains(v.Alarms, in.Alarm) })
	}
	return page, err
}

// findVolume finds a volume by its id, the beginning of its id, or the UUID in
// its header.
func (o *operators) findVolume(ctx context.Context, in *RefInput) (*kms.Volume, object, error) {
	v, err := o.searchVolume(ctx, strings.TrimPrefix(in.Ref, "volume/"))
	if err != nil {
		return nil, object{}, err
	}
	m, err := o.server.Store.Machine(ctx, v.Machine)
	if err != nil {
		return nil, object{}, err
	}
	return v, object{policy.Volume{ID: v.ID, Machine: policyMachine(m)}, "volume/" + v.ID}, nil
}

// minVolumePrefix is how much of an id a reference must give.
const minVolumePrefix = 6

func (o *operators) searchVolume(ctx context.Context, ref string) (*kms.Volume, error) {
	if len(ref) < minVolumePrefix {
		return nil, &kms.UsageError{Text: "a volume is named by its LUKS UUID, its id, or at least 6 characters of its id"}
	}
	found, err := o.server.Store.FindVolumes(ctx, ref, 2)
	switch {
	case err != nil:
		return nil, err
	case len(found) == 0:
		return nil, &kms.NotFoundError{Kind: "volume", Ref: ref}
	case len(found) > 1:
		return nil, &kms.UsageError{Text: "it names several volumes: give the whole id"}
	}
	return &found[0], nil
}

func (o *operators) showVolume(ctx context.Context, v *kms.Volume, _ *RefInput) (api.Volume, error) {
	secrets, err := o.server.Store.Secrets(ctx, v.ID)
	if err != nil {
		return api.Volume{}, err
	}
	answer, err := o.withAlarms(ctx, v)
	if err != nil {
		return api.Volume{}, err
	}
	for i := range secrets {
		answer.Secrets = append(answer.Secrets, secretOf(&secrets[i]))
	}
	if answer.Order, err = o.orderOfVolume(ctx, v); err != nil {
		return api.Volume{}, err
	}
	answer.Report, err = reportOf(v)
	return answer, err
}

func (o *operators) acceptVolume(ctx context.Context, v *kms.Volume, in *acceptVolumeInput) (api.Volume, error) {
	accepted, err := o.server.Service.AcceptVolume(ctx, in.operator(ctx), v, kms.Acceptance(in.Body))
	if err != nil {
		return api.Volume{}, err
	}
	return o.showVolume(ctx, accepted, nil)
}

func trimMeasurement(ref string) string { return strings.TrimPrefix(ref, "measurement/") }
