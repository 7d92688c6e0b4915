package kms

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"keywright.dev/kms/envelope"
	"keywright.dev/kms/root"
	"keywright.dev/kms/secret"
)

// Keys holds the keys of keyring versions, unwrapped, and wraps secrets with
// them. It is safe for concurrent use.
type Keys struct {
	store  ServiceKeys
	roots  []root.Root
	clock  func() time.Time
	random io.Reader

	mu   sync.RWMutex
	held map[keyringRef]secret.Bytes
	// current is the version that new secrets of a keyring are wrapped with.
	current map[string]uint32
	// changing is held while versions are made, and while what is held is brought
	// in line with the rows.
	changing sync.Mutex
}

type keyringRef struct {
	name    string
	version uint32
}

// OpenKeys unwraps every keyring version with the first root that opens it. In
// an empty store it makes the system and the default keyring, wrapped by every
// root. It fails where a version opens under none of the roots.
func OpenKeys(ctx context.Context, store ServiceKeys, roots []root.Root, clock func() time.Time, random io.Reader) (*Keys, error) {
	if len(roots) == 0 {
		return nil, errors.New("opening keyrings: no root of trust is configured")
	}
	k := &Keys{
		store: store, roots: roots, clock: clock, random: random,
		held: make(map[keyringRef]secret.Bytes), current: make(map[string]uint32),
	}
	if err := k.open(ctx); err != nil {
		k.Wipe()
		return nil, err
	}
	return k, nil
}

func (k *Keys) open(ctx context.Context) error {
	versions, err := k.store.Keyrings(ctx)
	if err != nil {
		return fmt.Errorf("opening keyrings: %w", err)
	}
	if len(versions) == 0 {
		return k.createFirst(ctx)
	}
	for _, v := range versions {
		if !v.Status.opens() {
			continue
		}
		if err := k.hold(ctx, v); err != nil {
			return err
		}
	}
	k.choose(versions)
	return nil
}

// createFirst makes version 1 of the keyrings that every installation has.
func (k *Keys) createFirst(ctx context.Context) error {
	var versions []KeyringVersion
	for _, name := range []string{SystemKeyring, DefaultKeyring} {
		v, err := k.makeVersion(ctx, name, 1)
		if err != nil {
			return err
		}
		versions = append(versions, v)
	}
	if err := k.store.AddKeys(ctx, versions, nil, nil); err != nil {
		return fmt.Errorf("creating the first keyrings: %w", err)
	}
	k.choose(versions)
	return nil
}

// makeVersion makes a key, holds it, and returns it wrapped by every root.
func (k *Keys) makeVersion(ctx context.Context, name string, version uint32) (KeyringVersion, error) {
	v, key, err := k.newVersion(ctx, name, version)
	if err == nil {
		k.keep(name, version, key)
	}
	return v, err
}

// newVersion makes a key and wraps it by every root.
func (k *Keys) newVersion(ctx context.Context, name string, version uint32) (KeyringVersion, secret.Bytes, error) {
	key, err := secret.Random(k.random, envelope.KeySize)
	if err != nil {
		return KeyringVersion{}, secret.Bytes{}, fmt.Errorf("creating keyring/%s@%d: %w", name, version, err)
	}
	v := KeyringVersion{Keyring: name, Version: version, Status: KeyringEnabled, Created: k.clock()}
	for _, r := range k.roots {
		wrapped, err := r.Wrap(ctx, key, keyringContext(name, version))
		if err != nil {
			key.Wipe()
			return KeyringVersion{}, secret.Bytes{}, fmt.Errorf("creating keyring/%s@%d: %w", name, version, err)
		}
		v.Wrappers = append(v.Wrappers, Wrapper{Root: r.URI(), Wrapped: wrapped.Ciphertext})
	}
	return v, key, nil
}

// hold unwraps a version and keeps its key.
func (k *Keys) hold(ctx context.Context, v KeyringVersion) error {
	errs := []error{fmt.Errorf("opening keyring/%s@%d: no configured root has a wrapper of it; it is wrapped by %v", v.Keyring, v.Version, wrappedBy(v))}
	for _, r := range k.roots {
		i := slices.IndexFunc(v.Wrappers, func(w Wrapper) bool { return w.Root == r.URI() })
		if i < 0 {
			continue
		}
		key, err := r.Unwrap(ctx, v.Wrappers[i].Wrapped, keyringContext(v.Keyring, v.Version))
		if err == nil {
			k.keep(v.Keyring, v.Version, key)
			return nil
		}
		errs = append(errs, fmt.Errorf("opening keyring/%s@%d: %w", v.Keyring, v.Version, err))
	}
	return errs[len(errs)-1]
}

func wrappedBy(v KeyringVersion) []string {
	var uris []string
	for _, w := range v.Wrappers {
		uris = append(uris, w.Root)
	}
	return uris
}

func (k *Keys) keep(name string, version uint32, key secret.Bytes) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.held[keyringRef{name, version}] = key
}

// keyringContext is what a root binds a wrapped keyring key to.
func keyringContext(name string, version uint32) []byte {
	return fmt.Appendf(nil, "keywright/keyring/v1\x00%s\x00%s\x00%d", DefaultTenant, name, version)
}

// Wrap wraps plaintext with the current version of c's keyring and returns the
// version. Tenant and version of c are filled in here.
func (k *Keys) Wrap(c envelope.Context, plaintext secret.Bytes) (wrapped string, version uint32, err error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	c.Tenant, c.Version = DefaultTenant, k.current[c.Keyring]
	key, ok := k.held[keyringRef{c.Keyring, c.Version}]
	if !ok {
		return "", 0, fmt.Errorf("wrapping a secret: keyring/%s: %w", c.Keyring, ErrNotFound)
	}
	wrapped, err = envelope.Seal(k.random, key, c, plaintext)
	return wrapped, c.Version, err
}

// Unwrap unwraps text under c, whose tenant is filled in here. A version that
// is not held is [ErrNotFound]; see package envelope for the other errors.
func (k *Keys) Unwrap(c envelope.Context, text string) (secret.Bytes, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	c.Tenant = DefaultTenant
	key, ok := k.held[keyringRef{c.Keyring, c.Version}]
	if !ok {
		return secret.Bytes{}, fmt.Errorf("unwrapping a secret: keyring/%s@%d: %w", c.Keyring, c.Version, ErrNotFound)
	}
	return envelope.Open(key, c, text)
}

// Wipe wipes every key held; nothing wraps or unwraps after it.
func (k *Keys) Wipe() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range k.held {
		key.Wipe()
	}
	clear(k.held)
}

// NewServiceKey is what makes one of the service's own keys.
type NewServiceKey func() (id string, public []byte, private secret.Bytes, err error)

// ServiceKey returns the newest key of a kind with its private part. Where the
// store has none it calls make and stores what that returns.
func (k *Keys) ServiceKey(ctx context.Context, kind ServiceKeyKind, make NewServiceKey) (ServiceKey, secret.Bytes, error) {
	keys, err := k.serviceKeys(ctx, kind)
	if err != nil {
		return ServiceKey{}, secret.Bytes{}, err
	}
	if len(keys) == 0 {
		return k.AddServiceKey(ctx, kind, make, nil)
	}
	newest := keys[0]
	private, err := k.openServiceKey(newest)
	return newest, private, err
}

// AddServiceKey makes and stores a key, and deletes those of drop in the same
// transaction.
func (k *Keys) AddServiceKey(ctx context.Context, kind ServiceKeyKind, make NewServiceKey, drop []ServiceKey) (ServiceKey, secret.Bytes, error) {
	id, public, private, err := make()
	if err != nil {
		return ServiceKey{}, secret.Bytes{}, fmt.Errorf("making the service's %s key: %w", kind, err)
	}
	row := ServiceKey{Kind: kind, ID: id, Public: public, Created: k.clock()}
	row.Wrapped, row.KeyringVersion, err = k.Wrap(serviceKeyContext(row), private)
	if err == nil {
		err = k.store.AddKeys(ctx, nil, []ServiceKey{row}, drop)
	}
	if err != nil {
		private.Wipe()
		return ServiceKey{}, secret.Bytes{}, fmt.Errorf("storing the service's %s key: %w", kind, err)
	}
	return row, private, nil
}

// serviceKeys returns the keys of a kind, newest first.
func (k *Keys) serviceKeys(ctx context.Context, kind ServiceKeyKind) ([]ServiceKey, error) {
	all, err := k.store.ServiceKeys(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the service's %s key: %w", kind, err)
	}
	keys := slices.DeleteFunc(all, func(s ServiceKey) bool { return s.Kind != kind })
	slices.SortStableFunc(keys, func(a, b ServiceKey) int { return cmp.Compare(b.Created.UnixNano(), a.Created.UnixNano()) })
	return keys, nil
}

func (k *Keys) openServiceKey(row ServiceKey) (secret.Bytes, error) {
	w, err := envelope.Parse(row.Wrapped)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("opening the service's %s key: %w", row.Kind, err)
	}
	c := serviceKeyContext(row)
	c.Version = w.Version
	private, err := k.Unwrap(c, row.Wrapped)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("opening the service's %s key: %w", row.Kind, err)
	}
	return private, nil
}

// serviceKeyContext binds a service key to its kind and id. No machine has
// such an id: machine ids are hexadecimal.
func serviceKeyContext(row ServiceKey) envelope.Context {
	return envelope.Context{Keyring: SystemKeyring, Purpose: "service-key", Machine: "service/" + string(row.Kind) + "/" + row.ID}
}
