package kms

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"keywright.dev/kms/audit"
	"keywright.dev/kms/root"
	"keywright.dev/kms/secret"
)

// The actions on roots of trust.
const (
	ActionRewrapRoots = "root.rewrap"
	ActionRemoveRoot  = "root.remove"
	ActionDropLeases  = "lease.drop"
)

// RootStep is one wrapper that is to be made.
type RootStep struct {
	Keyring string
	Version uint32
	Root    string
	// Was is the version of the root's key that wraps now; Missing tells that the
	// root has no wrapper yet.
	Was     string
	Missing bool
}

func (s RootStep) ref() keyringRef { return keyringRef{s.Keyring, s.Version} }

// RootFailure is a step, or a root, that went wrong.
type RootFailure struct {
	RootStep
	Err error
}

// PlanRoots returns the wrappers that lack: of a root that was added, and of a
// root whose key has a newer version. A root that does not answer is a failure of
// its own, without a keyring version. Where roots are named it is about these alone.
func (s *Service) PlanRoots(ctx context.Context, only ...string) (steps []RootStep, failures []RootFailure, err error) {
	for _, uri := range only {
		if s.Keys.rootOf(uri) == nil {
			return nil, nil, &NotFoundError{Kind: "root", Ref: uri}
		}
	}
	versions, err := s.Keys.Store.Keyrings(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("planning the roots' wrappers: %w", err)
	}
	for _, r := range s.Keys.Roots {
		if len(only) > 0 && !slices.Contains(only, r.URI()) {
			continue
		}
		newest, err := versionBy(ctx, r)
		if err != nil {
			failures = append(failures, RootFailure{RootStep{Root: r.URI()}, fmt.Errorf("asking for the version of its key: %w", err)})
			continue
		}
		for _, v := range living(versions) {
			w, found := v.wrapperOf(r.URI())
			if !found || w.Version != newest {
				steps = append(steps, RootStep{Keyring: v.Keyring, Version: v.Version, Root: r.URI(), Was: w.Version, Missing: !found})
			}
		}
	}
	return steps, failures, nil
}

// living leaves out the versions that were destroyed.
func living(versions []KeyringVersion) []KeyringVersion {
	return slices.DeleteFunc(slices.Clone(versions), func(v KeyringVersion) bool { return v.Status == KeyringDestroyed })
}

func (v *KeyringVersion) wrapperOf(uri string) (Wrapper, bool) {
	i := slices.IndexFunc(v.Wrappers, func(w Wrapper) bool { return w.Root == uri })
	if i < 0 {
		return Wrapper{}, false
	}
	return v.Wrappers[i], true
}

// RewrapRoots makes the wrappers of a plan, one by one: each is read back before
// it takes the place of the one before. It calls roots as often as there are
// keyring versions to wrap, and touches no secret. What went wrong is returned and
// left as it was, and a root that does not answer is asked no more; a later call
// goes on.
func (s *Service) RewrapRoots(ctx context.Context, by Operator, only ...string) (done []RootStep, failures []RootFailure, err error) {
	steps, failures, err := s.PlanRoots(ctx, only...)
	if err != nil {
		return nil, nil, err
	}
	away := make(map[string]error)
	for _, step := range steps {
		if by.DryRun {
			done = append(done, step)
			continue
		}
		err := away[step.Root]
		if err == nil {
			err = s.rewrapRoot(ctx, by, step)
		}
		switch {
		case err == nil:
			done = append(done, step)
		case ctx.Err() != nil:
			return done, failures, err
		default:
			failures = append(failures, RootFailure{step, err})
		}
		if isAway(err) && away[step.Root] == nil {
			away[step.Root] = fmt.Errorf("not asked after %v: %w", step.ref(), err)
		}
	}
	return done, failures, nil
}

// isAway tells that the root which was to wrap does not answer: where those do not
// that were to open, the next version may have another.
func isAway(err error) bool { return errors.Is(err, root.ErrUnavailable) && !errors.Is(err, ErrRoots) }

func (s *Service) rewrapRoot(ctx context.Context, by Operator, step RootStep) error {
	r := s.Keys.rootOf(step.Root)
	key, err := s.Keys.copyOf(ctx, step.ref())
	if err != nil {
		return err
	}
	defer key.Wipe()
	w, err := wrapBy(ctx, r, step.ref(), key)
	if err != nil {
		return err
	}
	return s.change(ctx, by, Key{Keyrings: true}, func(state State) (Outcome, error) {
		v := versionOf(state.Keyrings, step.ref())
		if v == nil || v.Status == KeyringDestroyed {
			return Outcome{}, disallow("%v was destroyed meanwhile", step.ref())
		}
		if now, found := v.wrapperOf(step.Root); found == step.Missing || now.Version != step.Was {
			return Outcome{}, disallow("the wrapper changed meanwhile: ask again")
		}
		d := by.draft(ActionRewrapRoots, "", step.ref().String())
		d.fact("root", "", step.Root)
		d.fact("root.version", step.Was, w.Version)
		return s.entered(Outcome{Wrappers: []VersionWrapper{{step.Keyring, step.Version, w}}}, d, audit.Done, nil)
	})
}

func versionOf(versions []KeyringVersion, ref keyringRef) *KeyringVersion {
	i := slices.IndexFunc(versions, func(v KeyringVersion) bool { return v.ref() == ref })
	if i < 0 {
		return nil
	}
	return &versions[i]
}

func (k *Keys) rootOf(uri string) root.Root {
	i := slices.IndexFunc(k.Roots, func(r root.Root) bool { return r.URI() == uri })
	if i < 0 {
		return nil
	}
	return k.Roots[i]
}

// copyOf returns a copy of a version's key, which the caller wipes.
func (k *Keys) copyOf(ctx context.Context, ref keyringRef) (key secret.Bytes, err error) {
	err = k.opened(ctx, func() error {
		k.mu.RLock()
		defer k.mu.RUnlock()
		held, err := k.held(ref)
		if err == nil {
			key = held.Clone()
		}
		return err
	})
	return key, err
}

// RemoveRoot deletes the wrappers of a root that the configuration names no more,
// and returns how many there were. Before, every version must have been opened by
// another root, just now.
func (s *Service) RemoveRoot(ctx context.Context, by Operator, uri string) (int, error) {
	if s.Keys.rootOf(uri) != nil {
		return 0, disallow("%s is configured: take it out of server.roots and restart the service first, or the next rewrap would bring it back", uri)
	}
	versions, err := s.Keys.Store.Keyrings(ctx)
	if err != nil {
		return 0, fmt.Errorf("removing root %s: %w", uri, err)
	}
	versions = slices.DeleteFunc(living(versions), func(v KeyringVersion) bool { _, found := v.wrapperOf(uri); return !found })
	if len(versions) == 0 {
		return 0, &NotFoundError{Kind: "root", Ref: uri}
	}
	witnesses := make(map[keyringRef]Wrapper)
	for _, v := range versions {
		if witnesses[v.ref()], err = s.witness(ctx, v, uri); err != nil {
			return 0, err
		}
	}
	return len(versions), s.change(ctx, by, Key{Keyrings: true}, func(state State) (Outcome, error) {
		return s.removeRoot(state, by, uri, witnesses)
	})
}

// witness returns a wrapper of a version that another root opened just now.
func (s *Service) witness(ctx context.Context, v KeyringVersion, besides string) (Wrapper, error) {
	key, err := s.Keys.copyOf(ctx, v.ref())
	if err != nil {
		return Wrapper{}, err
	}
	defer key.Wipe()
	var errs []error
	for _, other := range s.Keys.wrappersOf(v) {
		w, _ := v.wrapperOf(other.root.URI())
		err := opensBy(ctx, other.root, v.ref(), w, key)
		if err == nil {
			return w, nil
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return Wrapper{}, disallow("without %s nothing would open %v: run keywright root rewrap first", besides, v.ref())
	}
	return Wrapper{}, fmt.Errorf("removing root %s: no other opens %v: %w", besides, v.ref(), joinRoots(errs))
}

func (s *Service) removeRoot(state State, by Operator, uri string, witnesses map[keyringRef]Wrapper) (Outcome, error) {
	var out Outcome
	for _, v := range state.Keyrings {
		if _, found := v.wrapperOf(uri); !found {
			continue
		}
		w, seen := witnesses[v.ref()]
		if still, _ := v.wrapperOf(w.Root); !seen || !slices.Equal(still.Wrapped, w.Wrapped) {
			return Outcome{}, disallow("%v changed meanwhile: ask again", v.ref())
		}
		out.DropWrappers = append(out.DropWrappers, VersionWrapper{v.Keyring, v.Version, Wrapper{Root: uri}})
	}
	d := by.draft(ActionRemoveRoot, "", rootObject(uri))
	d.fact("wrappers", fmt.Sprint(len(out.DropWrappers)), "0")
	return s.entered(out, d, audit.Done, nil)
}

// DropLeases ends all leases, of every replica: none holds a key any more that no
// root opened since.
func (s *Service) DropLeases(ctx context.Context, by Operator, reason string) error {
	err := s.change(ctx, by, Key{}, func(State) (Outcome, error) {
		d := by.draft(ActionDropLeases, "", "service/leases")
		if reason != "" {
			d.fact("reason", "", reason)
		}
		return s.entered(Outcome{DropLeases: true}, d, audit.Done, nil)
	})
	if err != nil || by.DryRun {
		return err
	}
	epoch, err := s.Keys.Store.LeaseEpoch(ctx)
	s.Keys.Epoch(epoch)
	return err
}

// RootState is what is known of one root of trust.
type RootState struct {
	URI        string
	Configured bool
	// Offline says which people open its wrappers; empty for a root that opens
	// them itself.
	Offline string
	// Wraps counts the keyring versions that it has a wrapper of, Versions those
	// that there are.
	Wraps, Versions int
	// Err is what it answered when it was asked to decrypt just now; nil where it
	// did, or is not asked.
	Err error
}

// Roots asks each root to decrypt, and returns what is known of them: first those
// that are configured, in their order, then those that wrap still.
func (s *Service) Roots(ctx context.Context) ([]RootState, error) {
	versions, err := s.Keys.Store.Keyrings(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing roots: %w", err)
	}
	versions = living(versions)
	list := s.Keys.askRoots(ctx, versions)
	for _, v := range versions {
		for _, w := range v.Wrappers {
			if !slices.ContainsFunc(list, func(s RootState) bool { return s.URI == w.Root }) {
				list = append(list, RootState{URI: w.Root})
			}
		}
	}
	for i := range list {
		list[i].Versions = len(versions)
		for _, v := range versions {
			if _, found := v.wrapperOf(list[i].URI); found {
				list[i].Wraps++
			}
		}
	}
	return list, nil
}

// askRoots asks the configured roots beside each other: one that hangs must not hide
// the others.
func (k *Keys) askRoots(ctx context.Context, versions []KeyringVersion) []RootState {
	list := make([]RootState, len(k.Roots))
	var group sync.WaitGroup
	for i, r := range k.Roots {
		list[i] = RootState{URI: r.URI(), Configured: true}
		if o, offline := r.(root.Offline); offline {
			list[i].Offline = o.Offline()
			continue
		}
		group.Go(func() { list[i].Err = k.askRoot(ctx, r, versions) })
	}
	group.Wait()
	return list
}

var errNoWrapper = errors.New("it has no wrapper yet: run keywright root rewrap")

// askRoot has a root open the first version that it has a wrapper of.
func (k *Keys) askRoot(ctx context.Context, r root.Root, versions []KeyringVersion) error {
	for _, v := range versions {
		w, found := v.wrapperOf(r.URI())
		if !found {
			continue
		}
		key, err := unwrapBy(ctx, r, v.ref(), w)
		key.Wipe()
		return err
	}
	return errNoWrapper
}
