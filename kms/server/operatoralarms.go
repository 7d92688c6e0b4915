package server

import (
	"context"
	"errors"
	"slices"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
)

// alarmsOfVolume returns the kinds of a volume's open alarms.
func alarmsOfVolume(v *kms.Volume) []string {
	var alarms []string
	if v.Copied {
		alarms = append(alarms, string(kms.AlarmCopied))
	}
	if v.Foreign {
		alarms = append(alarms, string(kms.AlarmForeign))
	}
	return alarms
}

// alarmsOf returns the kinds of a machine's open alarms and of its volumes'.
func alarmsOf(m *kms.Machine, volumes []kms.Volume) []string {
	var alarms []string
	if m.Regressed {
		alarms = append(alarms, string(kms.AlarmCounters))
	}
	for i := range volumes {
		alarms = append(alarms, alarmsOfVolume(&volumes[i])...)
	}
	slices.Sort(alarms)
	return slices.Compact(alarms)
}

// alarmedVolumes is volumeOf of many, with what their alarms are about.
func (o *operators) alarmedVolumes(ctx context.Context, volumes []kms.Volume) ([]api.Volume, error) {
	list := []api.Volume{}
	for i := range volumes {
		v, err := o.withAlarms(ctx, &volumes[i])
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}

// withAlarms is volumeOf with what its alarms are about. That a volume key is on
// other machines is said of one whose alarm was accepted as well.
func (o *operators) withAlarms(ctx context.Context, v *kms.Volume) (api.Volume, error) {
	out := volumeOf(v)
	if v.Foreign {
		items, err := v.ForeignItems()
		if err != nil {
			return api.Volume{}, err
		}
		for _, i := range items {
			out.Foreign = append(out.Foreign, api.Claim{Name: i.Kind, Value: i.Text})
		}
	}
	if len(v.VolumeKeyDigest) == 0 {
		return out, nil
	}
	others, err := o.server.Store.SameKey(ctx, v.VolumeKeyDigest, v.Machine, kms.MaxSameKey)
	if err != nil {
		return api.Volume{}, err
	}
	for i := range others {
		ref, err := o.volumeRef(ctx, &others[i])
		if err != nil {
			return api.Volume{}, err
		}
		out.SameKey = append(out.SameKey, ref)
	}
	return out, nil
}

func (o *operators) volumeRef(ctx context.Context, v *kms.Volume) (api.VolumeRef, error) {
	ref := api.VolumeRef{ID: v.ID, Machine: v.Machine, Status: string(v.Status)}
	m, err := o.server.Store.Machine(ctx, v.Machine)
	switch {
	case errors.Is(err, kms.ErrNotFound): // dropped meanwhile
	case err != nil:
		return ref, err
	default:
		ref.Name = m.Name
	}
	return ref, nil
}
