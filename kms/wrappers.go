package kms

import (
	"context"
	"fmt"
	"time"

	"keywright.dev/kms/envelope"
	"keywright.dev/kms/root"
	"keywright.dev/kms/secret"
)

func (k *Keys) refs() []keyringRef {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return sortedRefs(k.versions)
}

// known returns the versions as they were read last, ordered.
func (k *Keys) known() []KeyringVersion {
	k.mu.RLock()
	defer k.mu.RUnlock()
	var list []KeyringVersion
	for _, ref := range sortedRefs(k.versions) {
		list = append(list, k.versions[ref])
	}
	return list
}

// version finds a version, also one that another replica made meanwhile.
func (k *Keys) version(ctx context.Context, ref keyringRef) (KeyringVersion, error) {
	for range 2 {
		k.mu.RLock()
		v, ok := k.versions[ref]
		k.mu.RUnlock()
		if ok {
			return v, nil
		}
		if err := k.reload(ctx); err != nil {
			return KeyringVersion{}, err
		}
	}
	return KeyringVersion{}, fmt.Errorf("opening %v: %w", ref, ErrNotFound)
}

// newVersion makes a key, and wraps it by every root: a version that lacked one
// would be lost with the others. The caller wipes the key, or holds it.
func (k *Keys) newVersion(ctx context.Context, name string, version uint32) (KeyringVersion, secret.Bytes, error) {
	v := KeyringVersion{Keyring: name, Version: version, Status: KeyringEnabled, Created: k.Clock()}
	key, err := secret.Random(k.Random, envelope.KeySize)
	if err != nil {
		return v, key, fmt.Errorf("creating %v: %w", v.ref(), err)
	}
	for _, r := range k.Roots {
		w, err := wrapBy(ctx, r, v.ref(), key)
		if err != nil {
			key.Wipe()
			return v, key, fmt.Errorf("creating %v: %w", v.ref(), &WrapError{r.URI(), joinRoots([]error{err})})
		}
		v.Wrappers = append(v.Wrappers, w)
	}
	return v, key, nil
}

// callTimeout bounds one call of a root, for whoever would wait without end for one
// that hangs.
const callTimeout = 30 * time.Second

// wrapBy has a root wrap a version's key, and reads it back: a wrapper that does
// not open is worth nothing, and this is the last moment to notice it.
func wrapBy(ctx context.Context, r root.Root, ref keyringRef, key secret.Bytes) (Wrapper, error) {
	calling, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	wrapped, err := r.Wrap(calling, key, keyringContext(ref.name, ref.version))
	if err != nil {
		return Wrapper{}, err
	}
	w := Wrapper{Root: r.URI(), Version: wrapped.Version, Wrapped: wrapped.Ciphertext}
	if o, offline := r.(root.Offline); offline {
		return w, o.Verify(w.Wrapped, key, keyringContext(ref.name, ref.version))
	}
	return w, opensBy(ctx, r, ref, w, key)
}

// opensBy demands that a root opens a wrapper to the key.
func opensBy(ctx context.Context, r root.Root, ref keyringRef, w Wrapper, key secret.Bytes) error {
	back, err := unwrapBy(ctx, r, ref, w)
	if err != nil {
		return fmt.Errorf("reading back the wrapper of %v: %w", ref, err)
	}
	defer back.Wipe()
	if !back.Equal(key) {
		return fmt.Errorf("reading back the wrapper of %v: %s opens it to another key", ref, r.URI())
	}
	return nil
}

func unwrapBy(ctx context.Context, r root.Root, ref keyringRef, w Wrapper) (secret.Bytes, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return r.Unwrap(ctx, w.Wrapped, keyringContext(ref.name, ref.version))
}

// versionBy asks for the version of a root's key.
func versionBy(ctx context.Context, r root.Root) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return r.Version(ctx)
}

// rootWrapper is a wrapper with the root that opens it.
type rootWrapper struct {
	root    root.Root
	wrapped []byte
}

// wrappersOf returns the wrappers that a configured root opens, in the order of
// the configuration. Those that only people open are none.
func (k *Keys) wrappersOf(v KeyringVersion) []rootWrapper {
	var list []rootWrapper
	for _, r := range k.Roots {
		if _, offline := r.(root.Offline); offline {
			continue
		}
		for _, w := range v.Wrappers {
			if w.Root == r.URI() {
				list = append(list, rootWrapper{r, w.Wrapped})
			}
		}
	}
	return list
}

func wrappedBy(v KeyringVersion) []string {
	var uris []string
	for _, w := range v.Wrappers {
		uris = append(uris, w.Root)
	}
	return uris
}

// keyringContext binds a version's key to its place, so that a wrapper that is
// moved to another row of the store opens nothing.
func keyringContext(name string, version uint32) []byte {
	return fmt.Appendf(nil, "keywright/keyring/v1\x00%s\x00%s\x00%d", DefaultTenant, name, version)
}
