package kms

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"keywright.dev/kms/audit"
)

// The actions of audit entries about keyrings.
const (
	ActionCreateKeyring  = "keyring.create"
	ActionRotateKeyring  = "keyring.rotate"
	ActionEnableKeyring  = "keyring.enable"
	ActionDisableKeyring = "keyring.disable"
	ActionDestroyKeyring = "keyring.destroy"
	ActionCancelDestroy  = "keyring.cancel_destroy"
	// ActionEraseKeyring is the service's: the time of a destruction has come.
	ActionEraseKeyring = "keyring.erase"
)

// How long a destruction can be cancelled.
const (
	MinDestroyWait     = 7 * 24 * time.Hour
	MaxDestroyWait     = 30 * 24 * time.Hour
	DefaultDestroyWait = MaxDestroyWait
)

// Keyring is a keyring with all its versions.
type Keyring struct {
	Name string
	// Current is the version that new secrets are wrapped with.
	Current    uint32
	Versions   []KeyringVersion // ordered by version
	Dependents []Dependents     // ordered by version
	Uses       []KeyringUse     // ordered by version
}

// Use is what a version did for the key API; nil where that is nothing.
func (k *Keyring) Use(version uint32) *KeyringUse { return findUse(k.Uses, version) }

// Count returns how many rows a version opens.
func (k *Keyring) Count(version uint32) int64 { return countOf(k.Dependents, version) }

func countOf(dependents []Dependents, version uint32) (count int64) {
	for _, d := range dependents {
		if d.Version == version {
			count += d.Count
		}
	}
	return count
}

func findVersion(versions []KeyringVersion, version uint32) *KeyringVersion {
	i := slices.IndexFunc(versions, func(v KeyringVersion) bool { return v.Version == version })
	if i < 0 {
		return nil
	}
	return &versions[i]
}

func newestOf(versions []KeyringVersion) uint32 {
	if len(versions) == 0 {
		return 0
	}
	return versions[len(versions)-1].Version
}

// Keyrings returns every keyring, ordered by name.
func (s *Service) Keyrings(ctx context.Context) ([]Keyring, error) {
	versions, err := s.Keys.Store.Keyrings(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading keyrings: %w", err)
	}
	dependents, err := s.Store.Dependents(ctx, "")
	if err != nil {
		return nil, err
	}
	uses, err := s.Store.KeyringUses(ctx)
	if err != nil {
		return nil, err
	}
	var list []Keyring
	for _, v := range versions {
		if len(list) == 0 || list[len(list)-1].Name != v.Keyring {
			list = append(list, Keyring{Name: v.Keyring})
		}
		last := &list[len(list)-1]
		last.Versions = append(last.Versions, v)
	}
	for i := range list {
		k := &list[i]
		if current := currentOf(k.Versions); current != nil {
			k.Current = current.Version
		}
		k.Dependents = slices.DeleteFunc(slices.Clone(dependents), func(d Dependents) bool { return d.Keyring != k.Name })
		k.Uses = slices.DeleteFunc(slices.Clone(uses), func(u KeyringUse) bool { return u.Keyring != k.Name })
	}
	return list, nil
}

// FindKeyring finds a keyring by its name; "keyring/" may stand in front.
func (s *Service) FindKeyring(ctx context.Context, ref string) (*Keyring, error) {
	name := trimKind("keyring", ref)
	if !validKeyring(name) {
		return nil, usageKeyring()
	}
	list, err := s.Keyrings(ctx)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].Name == name {
			return &list[i], nil
		}
	}
	return nil, &NotFoundError{"keyring", name}
}

// FindKeyringVersion finds a version by "NAME@VERSION".
func (s *Service) FindKeyringVersion(ctx context.Context, ref string) (*KeyringVersion, error) {
	name, number, found := strings.Cut(ref, "@")
	version, err := strconv.ParseUint(number, 10, 31)
	if !found || err != nil {
		return nil, usage("a version of a keyring is named by NAME@VERSION, such as prod@3")
	}
	k, err := s.FindKeyring(ctx, name)
	if err != nil {
		return nil, err
	}
	if v := findVersion(k.Versions, uint32(version)); v != nil {
		return v, nil
	}
	return nil, &NotFoundError{"keyring version", ref}
}

func versionObject(name string, version uint32) string {
	return fmt.Sprintf("keyring/%s@%d", name, version)
}

func (o Operator) changedBy() string { return string(o.Kind) + "/" + o.ID }

// CreateKeyring makes a keyring with its first version. It costs a wrap and an
// unwrap at each root.
func (s *Service) CreateKeyring(ctx context.Context, by Operator, name string) (*KeyringVersion, error) {
	if !validKeyring(name) {
		return nil, usageKeyring()
	}
	return s.addVersion(ctx, by, ActionCreateKeyring, name, 1, func(state *State) error {
		if len(state.Keyring) > 0 {
			return ErrExists
		}
		return nil
	})
}

// RotateKeyring makes the next version, which new secrets are wrapped with from
// then on; what is wrapped already stays as it is until it is rewrapped. Where
// from is not 0, it is the version that the operator saw as the current one: with
// another one by now nothing is done, so that a rotation can be asked for again
// after its answer was lost. It costs a wrap and an unwrap at each root.
func (s *Service) RotateKeyring(ctx context.Context, by Operator, name string, from uint32) (*KeyringVersion, error) {
	k, err := s.FindKeyring(ctx, name)
	if err != nil {
		return nil, err
	}
	next := newestOf(k.Versions) + 1
	return s.addVersion(ctx, by, ActionRotateKeyring, k.Name, next, func(state *State) error {
		current := currentOf(state.Keyring)
		switch {
		case newestOf(state.Keyring)+1 != next:
			return errRotated(k.Name)
		case from != 0 && (current == nil || current.Version != from):
			return errRotated(k.Name)
		}
		return nil
	})
}

func errRotated(name string) error {
	return disallow("somebody rotated it meanwhile, or changed its current version: look at it with `keywright keyring show %s`", name)
}

// addVersion makes a version where check allows it, in the transaction that adds
// its row.
func (s *Service) addVersion(ctx context.Context, by Operator, action, name string, version uint32, check func(*State) error) (*KeyringVersion, error) {
	var added KeyringVersion
	store := func(v KeyringVersion) error {
		return s.change(ctx, by, Key{Keyring: name}, func(state State) (Outcome, error) {
			if err := check(&state); err != nil {
				return Outcome{}, err
			}
			v.Changed, v.ChangedBy = v.Created, by.changedBy()
			added = v
			d := by.draft(action, "", versionObject(name, version))
			if was := currentOf(state.Keyring); was != nil {
				d.fact("current", versionObject(name, was.Version), versionObject(name, version))
			}
			d.facts = append(d.facts, wrapperFacts(&v)...)
			return s.entered(Outcome{NewKeyrings: []KeyringVersion{v}}, d, audit.Done, nil)
		})
	}
	err := s.makeAndStore(ctx, by, name, version, store)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", action, versionObject(name, version), err)
	}
	return &added, nil
}

// makeAndStore asks no root in a dry run.
func (s *Service) makeAndStore(ctx context.Context, by Operator, name string, version uint32, store func(KeyringVersion) error) error {
	if by.DryRun {
		return store(KeyringVersion{Keyring: name, Version: version, Status: KeyringEnabled, Created: s.Clock()})
	}
	return s.Keys.Add(ctx, name, version, store)
}

func wrapperFacts(v *KeyringVersion) []audit.Fact {
	var facts []audit.Fact
	for _, w := range v.Wrappers {
		facts = append(facts, audit.Fact{Name: "root", Is: w.Root})
	}
	return facts
}

// EnableKeyring lets a disabled version wrap again. The newest enabled version of
// a keyring is its current one.
func (s *Service) EnableKeyring(ctx context.Context, by Operator, v *KeyringVersion) (*KeyringVersion, error) {
	return s.changeVersion(ctx, by, ActionEnableKeyring, v, func(_ *State, v *KeyringVersion, _ *draft) error {
		if v.Status != KeyringDisabled {
			return disallow("it is %s: only a disabled version can be enabled", v.Status)
		}
		v.Status = KeyringEnabled
		return nil
	})
}

// DisableKeyring has a version wrap nothing new. What it wrapped it still opens,
// so that no boot fails.
func (s *Service) DisableKeyring(ctx context.Context, by Operator, v *KeyringVersion) (*KeyringVersion, error) {
	return s.changeVersion(ctx, by, ActionDisableKeyring, v, func(state *State, v *KeyringVersion, _ *draft) error {
		if v.Status != KeyringEnabled {
			return disallow("it is %s: only an enabled version can be disabled", v.Status)
		}
		others := slices.DeleteFunc(slices.Clone(state.Keyring), func(o KeyringVersion) bool { return o.Version == v.Version })
		if currentOf(others) == nil {
			return disallow("no other version of the keyring is enabled, and it could wrap nothing then: run `keywright keyring rotate %s` first", v.Keyring)
		}
		v.Status = KeyringDisabled
		return nil
	})
}

// ScheduleDestroy has a disabled version, on which nothing depends, open nothing
// from this moment on, and destroyed after a while; until then it can be
// cancelled. What still depends on it is an [InUseError].
func (s *Service) ScheduleDestroy(ctx context.Context, by Operator, v *KeyringVersion, wait time.Duration) (*KeyringVersion, error) {
	wait = cmp.Or(wait, DefaultDestroyWait)
	if wait < MinDestroyWait || wait > MaxDestroyWait {
		return nil, usage("a version is destroyed after %d to %d days", MinDestroyWait/(24*time.Hour), MaxDestroyWait/(24*time.Hour))
	}
	return s.changeVersion(ctx, by, ActionDestroyKeyring, v, func(state *State, v *KeyringVersion, d *draft) error {
		if v.Status != KeyringDisabled {
			return disallow("it is %s: only a disabled version can be destroyed", v.Status)
		}
		if err := unused(v, state.Dependents); err != nil {
			return err
		}
		v.Status, v.DestroyAt = KeyringScheduled, s.Clock().Add(wait)
		d.fact("destroy_at", "", formatTime(v.DestroyAt))
		return nil
	})
}

// CancelDestroy has a version that waits for its destruction disabled again.
func (s *Service) CancelDestroy(ctx context.Context, by Operator, v *KeyringVersion) (*KeyringVersion, error) {
	v, err := s.changeVersion(ctx, by, ActionCancelDestroy, v, func(_ *State, v *KeyringVersion, d *draft) error {
		if v.Status != KeyringScheduled {
			return disallow("it is %s: there is no destruction to cancel", v.Status)
		}
		d.fact("destroy_at", formatTime(v.DestroyAt), "")
		v.Status, v.DestroyAt = KeyringDisabled, time.Time{}
		return nil
	})
	if err == nil && !by.DryRun {
		// Where no root answers, the upkeep goes on trying: it is cancelled all the same.
		_ = s.Keys.Open(ctx, v.Keyring, v.Version)
	}
	return v, err
}

// changeVersion is a change of one version's state with its audit entry. What it
// is changed from is what the transaction finds, never what was read before.
func (s *Service) changeVersion(ctx context.Context, by Operator, action string, found *KeyringVersion,
	change func(*State, *KeyringVersion, *draft) error,
) (*KeyringVersion, error) {
	object := versionObject(found.Keyring, found.Version)
	var changed KeyringVersion
	err := s.change(ctx, by, Key{Keyring: found.Keyring}, func(state State) (Outcome, error) {
		known := findVersion(state.Keyring, found.Version)
		if known == nil {
			return Outcome{}, ErrNotFound
		}
		changed = *known
		d := by.draft(action, "", object)
		if err := change(&state, &changed, &d); err != nil {
			return Outcome{}, err
		}
		d.fact("status", string(known.Status), string(changed.Status))
		changed.Changed, changed.ChangedBy = s.Clock(), by.changedBy()
		return s.entered(Outcome{Keyrings: []KeyringVersion{changed}}, d, audit.Done, nil)
	})
	if err == nil && !by.DryRun {
		err = s.Keys.reload(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", action, object, err)
	}
	if !by.DryRun && changed.Status.opens() {
		// The change is made, whether a root opens the version now or at an upkeep.
		_ = s.Keys.open(ctx, changed.ref())
	}
	return &changed, nil
}

// TendKeyrings keeps up the leases, takes over what others changed of keyrings, and
// erases the versions whose time has come. It is called every minute or so.
func (s *Service) TendKeyrings(ctx context.Context) error {
	errs := []error{s.Keys.Upkeep(ctx)}
	erased := false
	for _, v := range s.Keys.known() {
		if s.erasable(&v) {
			errs, erased = append(errs, s.erase(ctx, &v)), true
		}
	}
	if erased {
		errs = append(errs, s.Keys.Follow(ctx))
	}
	return errors.Join(errs...)
}

func (s *Service) erasable(v *KeyringVersion) bool {
	return v.Status == KeyringScheduled && !s.Clock().Before(v.DestroyAt)
}

// erase destroys a version, where nothing depends on it at that moment; else it is
// disabled again, so that what depends on it opens. Who scheduled the destruction
// stays in the tombstone.
func (s *Service) erase(ctx context.Context, found *KeyringVersion) error {
	object := versionObject(found.Keyring, found.Version)
	err := s.Store.Transact(ctx, Key{Keyring: found.Keyring}, func(state State) (Outcome, error) {
		known := findVersion(state.Keyring, found.Version)
		if known == nil || !s.erasable(known) {
			return Outcome{}, nil
		}
		v := *known
		d := draft{action: ActionEraseKeyring, object: object, actor: audit.Actor{Kind: audit.ActorService, ID: "upkeep"}}
		outcome := audit.Done
		v.Status, v.Changed, v.DestroyAt = KeyringDestroyed, s.Clock(), time.Time{}
		if count := countOf(state.Dependents, v.Version); count > 0 {
			outcome, v.Status = audit.Failed, KeyringDisabled
			d.fact("dependents", "", strconv.FormatInt(count, 10))
		}
		d.fact("scheduled_by", "", v.ChangedBy)
		d.fact("status", string(known.Status), string(v.Status))
		return s.entered(Outcome{Keyrings: []KeyringVersion{v}}, d, outcome, nil)
	})
	if err != nil {
		return fmt.Errorf("%s %s: %w", ActionEraseKeyring, object, err)
	}
	return nil
}
