package kms

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"keywright.dev/kms/envelope"
	"keywright.dev/kms/root"
	"keywright.dev/kms/secret"
)

// KeysConfig says what keyring versions are opened with.
type KeysConfig struct {
	Store ServiceKeys
	// Roots wrap each keyring version; any one of them opens it. The first is
	// asked first.
	Roots  []root.Root
	Clock  func() time.Time
	Random io.Reader
	// Uptime counts on while the host sleeps: CLOCK_BOOTTIME.
	Uptime func() time.Duration
	// Lease is how long a key is held after a root opened it; zero means
	// [DefaultLease].
	Lease time.Duration
}

// Keys opens keyring versions through the roots, holds each under a lease, and
// wraps secrets with them. It is safe for concurrent use.
type Keys struct {
	KeysConfig

	flights singleflight.Group

	mu       sync.RWMutex
	versions map[keyringRef]KeyringVersion
	leases   map[keyringRef]lease
	failures map[keyringRef]openFailure
	// current is the version that new secrets of a keyring are wrapped with.
	current map[string]uint32
	// epoch is the row's, at which the leases began.
	epoch uint64
	// reads counts how often the rows were read; taken is which of them versions and
	// current are of.
	reads, taken uint64

	// changing is held while a version is made.
	changing sync.Mutex
}

type keyringRef struct {
	name    string
	version uint32
}

func (r keyringRef) String() string { return fmt.Sprintf("keyring/%s@%d", r.name, r.version) }

func (v *KeyringVersion) ref() keyringRef { return keyringRef{v.Keyring, v.Version} }

// ClosedError means that a keyring version is not held: nobody opened it yet, or
// its lease has ended. [Keys.Open] opens it, through a root.
type ClosedError struct {
	Keyring string
	Version uint32
}

// Error names the version.
func (e *ClosedError) Error() string {
	return keyringRef{e.Keyring, e.Version}.String() + " is not open"
}

// Unwrap returns [ErrUnavailable].
func (e *ClosedError) Unwrap() error { return ErrUnavailable }

// OpenKeys opens every keyring version. In an empty store it makes the system and
// the default keyring, wrapped by every root. It fails where a version of the
// system keyring does not open; others are tried again by [Keys.Upkeep], and when
// they are needed. The error is [root.ErrUnavailable] where a later try may do.
func OpenKeys(ctx context.Context, c KeysConfig) (*Keys, error) {
	if len(c.Roots) == 0 {
		return nil, errors.New("opening keyrings: no root of trust is configured")
	}
	if c.Lease == 0 {
		c.Lease = DefaultLease
	}
	k := &Keys{
		KeysConfig: c, versions: make(map[keyringRef]KeyringVersion), leases: make(map[keyringRef]lease),
		failures: make(map[keyringRef]openFailure), current: make(map[string]uint32),
	}
	if err := k.begin(ctx); err != nil {
		k.Wipe()
		return nil, err
	}
	return k, nil
}

func (k *Keys) begin(ctx context.Context) error {
	var err error
	// Before any is opened: a lease that began earlier must not outlive a drop.
	if k.epoch, err = k.Store.LeaseEpoch(ctx); err != nil {
		return fmt.Errorf("opening keyrings: %w", err)
	}
	if err := k.reload(ctx); err != nil {
		return err
	}
	if len(k.refs()) == 0 {
		return k.createFirst(ctx)
	}
	return k.openFirst(ctx)
}

// openFirst opens the system keyring, without which others are of no use, and then
// those.
func (k *Keys) openFirst(ctx context.Context) error {
	var others []keyringRef
	for _, ref := range k.due() {
		if ref.name != SystemKeyring {
			others = append(others, ref)
		} else if err := k.open(ctx, ref); err != nil {
			return err
		}
	}
	_ = openAll(others, func(ref keyringRef) error { return k.open(ctx, ref) }) // tried again, see OpenKeys
	return nil
}

// createFirst makes version 1 of the keyrings that every installation has.
func (k *Keys) createFirst(ctx context.Context) (err error) {
	keys := make(map[keyringRef]secret.Bytes)
	var versions []KeyringVersion
	defer func() {
		for _, key := range keys {
			key.Wipe()
		}
	}()
	for _, name := range []string{SystemKeyring, DefaultKeyring} {
		v, key, err := k.newVersion(ctx, name, 1)
		if err != nil {
			return err
		}
		versions = append(versions, v)
		keys[v.ref()] = key
	}
	if err := k.Store.AddKeys(ctx, versions, nil, nil); err != nil {
		return fmt.Errorf("creating the first keyrings: %w", err)
	}
	for ref, key := range keys {
		if err := k.keep(ref, key.Clone(), k.Roots[0].URI(), k.leaseEpoch()); err != nil {
			return err
		}
	}
	return k.reload(ctx)
}

// Wrap seals plaintext under the current version of c.Keyring and returns that
// version. A version that is not held is a [*ClosedError].
func (k *Keys) Wrap(c envelope.Context, plaintext secret.Bytes) (wrapped string, version uint32, err error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	c.Tenant, c.Version = DefaultTenant, k.current[c.Keyring]
	if c.Version == 0 {
		return "", 0, fmt.Errorf("wrapping a secret: keyring/%s: %w", c.Keyring, ErrNotFound)
	}
	key, err := k.usable(keyringRef{c.Keyring, c.Version})
	if err != nil {
		return "", 0, fmt.Errorf("wrapping a secret: %w", err)
	}
	wrapped, err = envelope.Seal(k.Random, key, c, plaintext)
	return wrapped, c.Version, err
}

// Unwrap opens what Wrap returned, under the version that c names. A version that
// is not held is a [*ClosedError].
func (k *Keys) Unwrap(c envelope.Context, text string) (secret.Bytes, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	c.Tenant = DefaultTenant
	key, err := k.usable(keyringRef{c.Keyring, c.Version})
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("unwrapping a secret: %w", err)
	}
	return envelope.Open(key, c, text)
}
