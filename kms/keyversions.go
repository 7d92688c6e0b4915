package kms

import (
	"context"
	"errors"
	"fmt"

	"keywright.dev/kms/root"
	"keywright.dev/kms/secret"
)

// currentOf returns the version that new secrets are wrapped with: the newest
// enabled one; nil without any.
func currentOf(versions []KeyringVersion) *KeyringVersion {
	var current *KeyringVersion
	for i := range versions {
		if versions[i].Status == KeyringEnabled && (current == nil || versions[i].Version > current.Version) {
			current = &versions[i]
		}
	}
	return current
}

// choose sets the current version of each keyring to what the rows say. A version
// that is in no row yet wraps nothing: what it wrapped would be lost with the
// process.
func (k *Keys) choose(versions []KeyringVersion) {
	byName := make(map[string][]KeyringVersion)
	for _, v := range versions {
		byName[v.Keyring] = append(byName[v.Keyring], v)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.current)
	for name, versions := range byName {
		if current := currentOf(versions); current != nil {
			k.current[name] = current.Version
		}
	}
}

// Follow brings what is held in line with the rows: versions that somebody made
// or enabled again are opened, those that open nothing any more are forgotten,
// and each keyring's current version is the one that the rows say.
func (k *Keys) Follow(ctx context.Context) error {
	k.changing.Lock()
	defer k.changing.Unlock()
	return k.follow(ctx)
}

func (k *Keys) follow(ctx context.Context) error {
	versions, err := k.store.Keyrings(ctx)
	if err != nil {
		return fmt.Errorf("reading keyrings: %w", err)
	}
	var errs []error
	opened := make(map[keyringRef]bool)
	for _, v := range versions {
		ref := keyringRef{v.Keyring, v.Version}
		if opened[ref] = v.Status.opens(); !opened[ref] || k.holds(ref) {
			continue
		}
		if err := k.hold(ctx, v); err != nil {
			errs = append(errs, classify(err))
		}
	}
	k.choose(versions)
	k.forgetAllBut(opened)
	return errors.Join(errs...)
}

// classify makes a root that is away an [ErrUnavailable].
func classify(err error) error {
	if errors.Is(err, root.ErrUnavailable) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

func (k *Keys) holds(ref keyringRef) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	_, ok := k.held[ref]
	return ok
}

// forgetAllBut wipes the keys of every other version.
func (k *Keys) forgetAllBut(opened map[keyringRef]bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for ref, key := range k.held {
		if !opened[ref] {
			key.Wipe()
			delete(k.held, ref)
		}
	}
}

// Add makes a version, reads each of its wrappers back, and has store store it.
// It is held, and may become the current one, after store returned without an
// error: what a key wrapped that is in no row would be lost with the process.
func (k *Keys) Add(ctx context.Context, name string, version uint32, store func(KeyringVersion) error) error {
	k.changing.Lock()
	defer k.changing.Unlock()
	v, key, err := k.newVersion(ctx, name, version)
	if err == nil {
		err = k.readBack(ctx, v, key)
	}
	if err == nil {
		err = store(v)
	}
	if err != nil {
		key.Wipe()
		return classify(err)
	}
	k.keep(name, version, key)
	_ = k.follow(ctx) // what it could not read or open is tried again by the next one
	return nil
}

// readBack opens each wrapper of a version that was made just now: a root that
// wrapped what it does not open must not be found out when it is too late.
func (k *Keys) readBack(ctx context.Context, v KeyringVersion, key secret.Bytes) error {
	for i, r := range k.roots {
		got, err := r.Unwrap(ctx, v.Wrappers[i].Wrapped, keyringContext(v.Keyring, v.Version))
		if err == nil && !got.Equal(key) {
			err = errors.New("it unwrapped another key")
		}
		got.Wipe()
		if err != nil {
			return fmt.Errorf("reading keyring/%s@%d back from root %s: %w", v.Keyring, v.Version, r.URI(), err)
		}
	}
	return nil
}
