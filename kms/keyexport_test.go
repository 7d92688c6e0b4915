package kms

import "context"

// AddVersion adds a version to a keyring, or makes it, for tests.
func (k *Keys) AddVersion(ctx context.Context, keyring string, version uint32) error {
	v, err := k.makeVersion(ctx, keyring, version)
	if err != nil {
		return err
	}
	return k.store.AddKeys(ctx, []KeyringVersion{v}, nil, nil)
}
