package server

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
)

type (
	rewrapRootsInput struct {
		DryRunInput
		Body api.ChooseRoot
	}
	removeRootInput struct {
		DryRunInput
		Body api.RemoveRoot
	}
	dropLeasesInput struct {
		DryRunInput
		Body api.DropLeases
	}
)

func (o *operators) addRoots() {
	register(o, operation[noInput, struct{}, api.Roots]{
		Route: Route{Method: http.MethodGet, Path: api.PathRoots, Action: "root.list", Summary: "Ask each root of trust to decrypt, and show the leases."},
		find:  nothing[noInput], act: o.roots,
	})
	register(o, operation[noInput, struct{}, api.ColdStarts]{
		Route: Route{Method: http.MethodGet, Path: api.PathColdStart, Action: "root.cold_start", Summary: "Tell what would open each keyring version after a restart."},
		find:  nothing[noInput], act: o.coldStart,
	})
	register(o, operation[rewrapRootsInput, struct{}, api.RootsRewrapped]{
		Route: Route{Method: http.MethodPost, Path: api.PathRootsRewrap, Action: kms.ActionRewrapRoots, Summary: "Wrap keyring versions by the roots that lack, or under the newest version of a root's key."},
		find:  nothing[rewrapRootsInput], act: o.rewrapRoots,
	})
	register(o, operation[removeRootInput, struct{}, api.RootRemoved]{
		Route: Route{Method: http.MethodPost, Path: api.PathRootsRemove, Action: kms.ActionRemoveRoot, Summary: "Delete the wrappers of a root that is configured no more."},
		find:  nothing[removeRootInput], act: o.removeRoot,
	})
	register(o, operation[dropLeasesInput, struct{}, struct{}]{
		Route: Route{Method: http.MethodPost, Path: api.PathLeasesDrop, Action: kms.ActionDropLeases, Summary: "End all leases: no key is held that no root opened since."},
		find:  nothing[dropLeasesInput], act: o.dropLeases,
	})
}

// maxErrorText bounds the text of a root's error.
const maxErrorText = 500

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return fmt.Sprintf("%.*s", maxErrorText, err)
}

func (o *operators) roots(ctx context.Context, _ struct{}, _ *noInput) (api.Roots, error) {
	states, err := o.server.Service.Roots(ctx)
	if err != nil {
		return api.Roots{}, err
	}
	list := api.Roots{Roots: []api.Root{}, Leases: []api.Lease{}}
	for _, s := range states {
		list.Roots = append(list.Roots, api.Root{
			URI: s.URI, Configured: s.Configured, Offline: s.Offline, Wraps: s.Wraps, Versions: s.Versions, Error: errorText(s.Err),
		})
	}
	for _, l := range o.server.Leases() {
		list.Leases = append(list.Leases, api.Lease{
			Keyring: l.Keyring, Version: l.Version, Seconds: int64(l.Left / time.Second), Root: l.Root, Error: errorText(l.Err),
		})
	}
	return list, nil
}

func (o *operators) coldStart(ctx context.Context, _ struct{}, _ *noInput) (api.ColdStarts, error) {
	states, err := o.server.Service.ColdStart(ctx)
	if err != nil {
		return api.ColdStarts{}, err
	}
	list := []api.ColdStart{}
	for _, s := range states {
		list = append(list, api.ColdStart{
			Keyring: s.Keyring, Version: s.Version, Opens: append([]string{}, s.Opens...), People: append([]string{}, s.People...),
		})
	}
	return api.ColdStarts{Versions: list}, nil
}

func (o *operators) rewrapRoots(ctx context.Context, _ struct{}, in *rewrapRootsInput) (api.RootsRewrapped, error) {
	result := api.RootsRewrapped{Done: []api.RootStep{}, Failed: []api.RootStep{}}
	var only []string
	if in.Body.Root != "" {
		only = append(only, in.Body.Root)
	}
	done, failures, err := o.server.Service.RewrapRoots(ctx, in.operator(ctx), only...)
	if err != nil {
		return result, err
	}
	for _, s := range done {
		result.Done = append(result.Done, rootStepOf(s, nil))
	}
	for _, f := range failures {
		result.Failed = append(result.Failed, rootStepOf(f.RootStep, f.Err))
	}
	return result, nil
}

func rootStepOf(s kms.RootStep, err error) api.RootStep {
	return api.RootStep{Keyring: s.Keyring, Version: s.Version, Root: s.Root, Was: s.Was, Error: errorText(err)}
}

func (o *operators) removeRoot(ctx context.Context, _ struct{}, in *removeRootInput) (api.RootRemoved, error) {
	n, err := o.server.Service.RemoveRoot(ctx, in.operator(ctx), in.Body.URI)
	return api.RootRemoved{Wrappers: n}, err
}

func (o *operators) dropLeases(ctx context.Context, _ struct{}, in *dropLeasesInput) (struct{}, error) {
	return struct{}{}, o.server.Service.DropLeases(ctx, in.operator(ctx), in.Body.Reason)
}
