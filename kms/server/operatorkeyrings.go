package server

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
	"keywright.dev/kms/policy"
)

type (
	createKeyringInput struct {
		DryRunInput
		Body api.CreateKeyring
	}
	censusInput struct {
		RefInput
		PageInput
	}
	rotateKeyringInput struct {
		RefInput
		DryRunInput
		Body api.RotateKeyring
	}
	rewrapKeyringInput struct {
		RefInput
		DryRunInput
		Body api.RewrapKeyring
	}
	changeKeyringInput struct {
		RefInput
		DryRunInput
		Body api.ChangeKeyring
	}
	assignKeyringInput struct {
		RefInput
		DryRunInput
		Body api.AssignKeyring
	}
	destroyKeyringInput struct {
		RefInput
		DryRunInput
		Body api.DestroyKeyring
	}
	dismissOutsideInput struct {
		RefInput
		DryRunInput
		Body api.DismissOutside
	}
)

func (o *operators) addKeyrings() {
	service := o.server.Service
	register(o, operation[PageInput, struct{}, api.Page[api.Keyring]]{
		Route: Route{Method: http.MethodGet, Path: api.PathKeyrings, Action: "keyring.list", Summary: "List keyrings."},
		find:  nothing[PageInput], act: o.listKeyrings,
	})
	register(o, operation[createKeyringInput, struct{}, api.KeyringVersion]{
		Route: Route{Method: http.MethodPost, Path: api.PathKeyrings, Action: kms.ActionCreateKeyring, Summary: "Make a keyring."},
		find:  nothing[createKeyringInput], act: o.createKeyring,
	})
	register(o, operation[RefInput, *kms.Keyring, api.Keyring]{
		Route: Route{Method: http.MethodGet, Path: api.PathKeyring, Action: "keyring.show", Summary: "Show a keyring with its versions."},
		find:  findKeyring[*RefInput](service),
		act: func(_ context.Context, k *kms.Keyring, _ *RefInput) (api.Keyring, error) {
			return keyringOf(k), nil
		},
	})
	register(o, operation[censusInput, *kms.Keyring, api.Census]{
		Route: Route{
			Method: http.MethodGet, Path: api.PathKeyringCensus, Action: "keyring.census",
			Summary: "Count what depends on a keyring; of NAME@VERSION, list it as well.",
		},
		find: findKeyring[*censusInput](service), act: o.census,
	})
	register(o, operation[rotateKeyringInput, *kms.Keyring, api.KeyringVersion]{
		Route: Route{Method: http.MethodPost, Path: api.PathKeyringRotate, Action: kms.ActionRotateKeyring, Summary: "Make the next version of a keyring."},
		find:  findKeyring[*rotateKeyringInput](service), act: o.rotateKeyring,
	})
	register(o, operation[rewrapKeyringInput, *kms.Keyring, api.Rewrapped]{
		Route: Route{
			Method: http.MethodPost, Path: api.PathKeyringRewrap, Action: kms.ActionRewrapKeyring,
			Summary: "Rewrap a page of a keyring's secrets with its current version.",
		},
		find: findKeyring[*rewrapKeyringInput](service), act: o.rewrapKeyring,
	})
	register(o, operation[assignKeyringInput, *kms.Machine, api.AssignedKeyring]{
		Route: Route{Method: http.MethodPost, Path: api.PathMachineKeyring, Action: kms.ActionAssignKeyring, Summary: "Have a keyring wrap a machine's secrets."},
		find:  findMachine[*assignKeyringInput](service.FindNamed), act: o.assignKeyring,
	})
	o.addKeyringStates()
}

func (o *operators) assignKeyring(ctx context.Context, m *kms.Machine, in *assignKeyringInput) (api.AssignedKeyring, error) {
	done, err := o.server.Service.AssignKeyring(ctx, in.operator(ctx), m.ID, in.Body.Keyring)
	if err != nil {
		return api.AssignedKeyring{}, err
	}
	return api.AssignedKeyring{Machine: machineOf(&done.Machine), Keyring: done.Keyring, Volumes: done.Volumes, Secrets: done.Secrets}, nil
}

func (o *operators) addKeyringStates() {
	service := o.server.Service
	for _, c := range []struct {
		path, action, summary string
		change                func(context.Context, kms.Operator, *kms.KeyringVersion) (*kms.KeyringVersion, error)
	}{
		{api.PathKeyringEnable, kms.ActionEnableKeyring, "Let a disabled version of a keyring wrap again.", service.EnableKeyring},
		{api.PathKeyringDisable, kms.ActionDisableKeyring, "Have a version of a keyring wrap nothing new; it still opens.", service.DisableKeyring},
		{api.PathKeyringCancel, kms.ActionCancelDestroy, "Cancel the destruction of a version of a keyring.", service.CancelDestroy},
	} {
		register(o, operation[changeKeyringInput, *kms.KeyringVersion, api.KeyringVersion]{
			Route: Route{Method: http.MethodPost, Path: c.path, Action: c.action, Summary: c.summary},
			find:  findKeyringVersion[*changeKeyringInput](service),
			act: func(ctx context.Context, v *kms.KeyringVersion, in *changeKeyringInput) (api.KeyringVersion, error) {
				return o.versionAnswer(c.change(ctx, in.operator(ctx), v))
			},
		})
	}
	register(o, operation[destroyKeyringInput, *kms.KeyringVersion, api.KeyringVersion]{
		Route: Route{
			Method: http.MethodPost, Path: api.PathKeyringDestroy, Action: kms.ActionDestroyKeyring,
			Summary: "Schedule the destruction of a disabled version of a keyring, on which nothing depends.",
		},
		find: findKeyringVersion[*destroyKeyringInput](service), act: o.destroyKeyring,
	})
	register(o, operation[dismissOutsideInput, *kms.KeyringVersion, api.KeyringVersion]{
		Route: Route{
			Method: http.MethodPost, Path: api.PathKeyringDismiss, Action: kms.ActionDismissOutside,
			Summary: "Say that nothing outside needs a version of a keyring any more, which served the key API.",
		},
		find: findKeyringVersion[*dismissOutsideInput](service), act: o.dismissOutside,
	})
}

// findKeyring takes NAME@VERSION as well, for the keyring of that version.
func findKeyring[Input referring](service *kms.Service) func(context.Context, Input) (*kms.Keyring, object, error) {
	return func(ctx context.Context, in Input) (*kms.Keyring, object, error) {
		name, _, _ := strings.Cut(in.reference(), "@")
		k, err := service.FindKeyring(ctx, name)
		if err != nil {
			return nil, object{}, err
		}
		return k, onKeyring(k.Name), nil
	}
}

func findKeyringVersion[Input referring](service *kms.Service) func(context.Context, Input) (*kms.KeyringVersion, object, error) {
	return func(ctx context.Context, in Input) (*kms.KeyringVersion, object, error) {
		v, err := service.FindKeyringVersion(ctx, in.reference())
		if err != nil {
			return nil, object{}, err
		}
		return v, onKeyring(v.Keyring), nil
	}
}

func onKeyring(name string) object { return object{policy.Keyring{Name: name}, "keyring/" + name} }

func (o *operators) listKeyrings(ctx context.Context, _ struct{}, in *PageInput) (api.Page[api.Keyring], error) {
	list, err := o.server.Service.Keyrings(ctx)
	list = slices.DeleteFunc(list, func(k kms.Keyring) bool { return k.Name <= in.After })
	return pageOf(list[:min(len(list), in.Limit)], in.Limit, keyringOf, func(k *kms.Keyring) string { return k.Name }), err
}

func keyringOf(k *kms.Keyring) api.Keyring {
	out := api.Keyring{Name: k.Name, Current: k.Current, Versions: []api.KeyringVersion{}}
	for i := range k.Versions {
		v := &k.Versions[i]
		version := versionOf(v, k.Count(v.Version))
		version.Outside = outsideOf(k.Use(v.Version))
		out.Versions = append(out.Versions, version)
	}
	return out
}

func versionOf(v *kms.KeyringVersion, dependents int64) api.KeyringVersion {
	out := api.KeyringVersion{
		Keyring: v.Keyring, Version: v.Version, Status: string(v.Status), Created: v.Created, Changed: stamp(v.Changed),
		ChangedBy: v.ChangedBy, DestroyAt: stamp(v.DestroyAt), Roots: []string{}, Dependents: dependents,
	}
	for _, w := range v.Wrappers {
		out.Roots = append(out.Roots, w.Root)
	}
	return out
}

func outsideOf(u *kms.KeyringUse) *api.Outside {
	if u == nil {
		return nil
	}
	return &api.Outside{
		First: u.First, Last: u.Last, Wraps: u.Wraps, Unwraps: u.Unwraps, Dismissed: stamp(u.Dismissed), DismissedBy: u.DismissedBy,
	}
}

// versionAnswer shows a version that was changed, or would be.
func (o *operators) versionAnswer(v *kms.KeyringVersion, err error) (api.KeyringVersion, error) {
	if err != nil {
		return api.KeyringVersion{}, err
	}
	return versionOf(v, 0), nil
}

func (o *operators) createKeyring(ctx context.Context, _ struct{}, in *createKeyringInput) (api.KeyringVersion, error) {
	return o.versionAnswer(o.server.Service.CreateKeyring(ctx, in.operator(ctx), in.Body.Name))
}

func (o *operators) rotateKeyring(ctx context.Context, k *kms.Keyring, in *rotateKeyringInput) (api.KeyringVersion, error) {
	return o.versionAnswer(o.server.Service.RotateKeyring(ctx, in.operator(ctx), k.Name, in.Body.From))
}

func (o *operators) destroyKeyring(ctx context.Context, v *kms.KeyringVersion, in *destroyKeyringInput) (api.KeyringVersion, error) {
	wait := time.Duration(in.Body.Days) * 24 * time.Hour
	return o.versionAnswer(o.server.Service.ScheduleDestroy(ctx, in.operator(ctx), v, wait))
}

func (o *operators) dismissOutside(ctx context.Context, v *kms.KeyringVersion, in *dismissOutsideInput) (api.KeyringVersion, error) {
	use, err := o.server.Service.DismissOutside(ctx, in.operator(ctx), v, kms.Dismissal{Reason: in.Body.Reason, Uses: in.Body.Uses})
	answer, err := o.versionAnswer(v, err)
	answer.Outside = outsideOf(use)
	return answer, err
}

// census lists what depends on a version where one is named.
func (o *operators) census(ctx context.Context, k *kms.Keyring, in *censusInput) (api.Census, error) {
	out := api.Census{Keyring: k.Name, Current: k.Current, Counts: []api.DependentsCount{}, Blockers: []api.Dependent{}}
	var only uint32
	if strings.Contains(in.Ref, "@") {
		v, err := o.server.Service.FindKeyringVersion(ctx, in.Ref)
		if err != nil {
			return out, err
		}
		only = v.Version
		page, next, err := o.server.Service.DependentsOn(ctx, v, in.After, in.Limit)
		if err != nil {
			return out, err
		}
		out.Next = next
		for i := range page {
			out.Blockers = append(out.Blockers, dependentOf(&page[i]))
		}
	}
	for _, d := range k.Dependents {
		if only == 0 || d.Version == only {
			out.Counts = append(out.Counts, api.DependentsCount{
				Version: d.Version, Kind: string(d.Kind), Purpose: d.Purpose, Status: d.Status, Count: d.Count,
			})
		}
	}
	return out, nil
}

func dependentOf(d *kms.Dependent) api.Dependent {
	return api.Dependent{
		Kind: string(d.Kind), Object: d.Object, Machine: d.Machine, Purpose: d.Purpose, Version: d.Version, Status: d.Status,
		Outside: outsideOf(d.Use),
	}
}

// defaultRewrapPage is how many rows a request rewraps that names no number.
const defaultRewrapPage = 100

func (o *operators) rewrapKeyring(ctx context.Context, k *kms.Keyring, in *rewrapKeyringInput) (api.Rewrapped, error) {
	limit := cmp.Or(in.Body.Limit, defaultRewrapPage)
	r, err := o.server.Service.RewrapPage(ctx, in.operator(ctx), k.Name, in.Body.After, limit, o.server.guests.yielding())
	if err != nil {
		return api.Rewrapped{}, err
	}
	out := api.Rewrapped{
		Keyring: r.Keyring, Current: r.Current, Done: r.Done, Changed: r.Changed, Failed: []api.RewrapFailure{},
		Next: r.Next, Remaining: r.Remaining, RootCalls: r.RootCalls,
	}
	for i := range r.Failed {
		f := &r.Failed[i]
		out.Failed = append(out.Failed, api.RewrapFailure{Dependent: dependentOf(&f.Dependent), Keyring: f.Keyring, Detail: f.Detail})
	}
	return out, nil
}
