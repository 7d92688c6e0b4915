package kms

import (
	"context"
	"fmt"
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

// reload reads which versions there are and what state they are in. A version that
// is in no row yet wraps nothing: what it wrapped would be lost with the process.
func (k *Keys) reload(ctx context.Context) error {
	k.mu.Lock()
	k.reads++
	read := k.reads
	k.mu.Unlock()
	versions, err := k.Store.Keyrings(ctx)
	if err != nil {
		return fmt.Errorf("reading keyrings: %w", err)
	}
	byName := make(map[string][]KeyringVersion)
	for _, v := range versions {
		byName[v.Keyring] = append(byName[v.Keyring], v)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if read < k.taken {
		return nil // whoever began to read later saw no older rows
	}
	k.taken = read
	clear(k.versions)
	clear(k.current)
	for _, v := range versions {
		k.versions[v.ref()] = v
	}
	for name, versions := range byName {
		if current := currentOf(versions); current != nil {
			k.current[name] = current.Version
		}
	}
	k.forgetUnused()
	return nil
}

// forgetUnused wipes the keys of versions that open nothing any more, and those
// whose lease has ended. The caller holds the lock.
func (k *Keys) forgetUnused() {
	for ref, l := range k.leases {
		if v, ok := k.versions[ref]; !ok || !v.Status.opens() || k.Uptime() >= l.until {
			l.key.Wipe()
			delete(k.leases, ref)
		}
	}
}

// Follow brings what is held in line with the rows: what opens nothing any more is
// forgotten, and each keyring's current version is the one that the rows say. It
// asks no root: a version that is not held is opened by whoever needs it, and by
// the upkeep, which tells why one does not open.
func (k *Keys) Follow(ctx context.Context) error { return k.reload(ctx) }

// Add makes a version, each of whose wrappers is read back, and has store store
// it. It is held, and may become the current one, after store returned without an
// error: what a key wrapped that is in no row would be lost with the process.
func (k *Keys) Add(ctx context.Context, name string, version uint32, store func(KeyringVersion) error) error {
	k.changing.Lock()
	defer k.changing.Unlock()
	epoch := k.leaseEpoch()
	v, key, err := k.newVersion(ctx, name, version)
	if err != nil {
		return err
	}
	if err := store(v); err != nil {
		key.Wipe()
		return err
	}
	if err := k.keep(v.ref(), key, k.Roots[0].URI(), epoch); err != nil {
		return err
	}
	return k.reload(ctx)
}
