package kms

import "context"

// AddVersion adds a version to a keyring, or makes it, for tests.
func (k *Keys) AddVersion(ctx context.Context, keyring string, version uint32) error {
	return k.Add(ctx, keyring, version, func(v KeyringVersion) error {
		return k.Store.AddKeys(ctx, []KeyringVersion{v}, nil, nil)
	})
}
