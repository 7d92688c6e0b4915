package kms

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"keywright.dev/kms/envelope"
	"keywright.dev/kms/secret"
)

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
	private, err := k.openServiceKey(ctx, newest)
	return newest, private, err
}

// AddServiceKey makes and stores a key, and deletes those of drop in the same
// transaction.
func (k *Keys) AddServiceKey(ctx context.Context, kind ServiceKeyKind, make NewServiceKey, drop []ServiceKey) (ServiceKey, secret.Bytes, error) {
	id, public, private, err := make()
	if err != nil {
		return ServiceKey{}, secret.Bytes{}, fmt.Errorf("making the service's %s key: %w", kind, err)
	}
	row := ServiceKey{Kind: kind, ID: id, Public: public, Created: k.Clock()}
	err = k.opened(ctx, func() (err error) {
		row.Wrapped, row.KeyringVersion, err = k.Wrap(serviceKeyContext(row), private)
		return err
	})
	if err == nil {
		err = k.Store.AddKeys(ctx, nil, []ServiceKey{row}, drop)
	}
	if err != nil {
		private.Wipe()
		return ServiceKey{}, secret.Bytes{}, fmt.Errorf("storing the service's %s key: %w", kind, err)
	}
	return row, private, nil
}

// serviceKeys returns the keys of a kind, newest first.
func (k *Keys) serviceKeys(ctx context.Context, kind ServiceKeyKind) ([]ServiceKey, error) {
	all, err := k.Store.ServiceKeys(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the service's %s key: %w", kind, err)
	}
	keys := slices.DeleteFunc(all, func(s ServiceKey) bool { return s.Kind != kind })
	sortNewest(keys)
	return keys, nil
}

func sortNewest(keys []ServiceKey) {
	slices.SortStableFunc(keys, func(a, b ServiceKey) int { return cmp.Compare(b.Created.UnixNano(), a.Created.UnixNano()) })
}

func (k *Keys) openServiceKey(ctx context.Context, row ServiceKey) (private secret.Bytes, err error) {
	w, err := envelope.Parse(row.Wrapped)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("opening the service's %s key: %w", row.Kind, err)
	}
	c := serviceKeyContext(row)
	c.Version = w.Version
	err = k.opened(ctx, func() (err error) {
		private, err = k.Unwrap(c, row.Wrapped)
		return err
	})
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
