package sqlite

import (
	"context"
	"fmt"

	"keywright.dev/kms"
	"keywright.dev/kms/store/sqlite/sqlitedb"
)

// Dependents implements [kms.Reader]: triggers count, so that it costs the same
// over any number of rows.
func (s *Store) Dependents(ctx context.Context, keyring string) ([]kms.Dependents, error) {
	read := func() ([]sqlitedb.Dependent, error) { return s.rows.DependentsOfKeyring(ctx, keyring) }
	if keyring == "" {
		read = func() ([]sqlitedb.Dependent, error) { return s.rows.AllDependents(ctx) }
	}
	found, err := read()
	if err != nil {
		return nil, fmt.Errorf("counting what depends on keyrings: %w", err)
	}
	return each(found, toDependents), nil
}

func toDependents(r sqlitedb.Dependent) kms.Dependents {
	return kms.Dependents{
		Keyring: r.Keyring, Version: uint32(r.Version), Kind: kms.DependentKind(r.Kind),
		Purpose: r.Purpose, Status: r.Status, Count: r.N,
	}
}

// SecretsOn implements [kms.Reader].
func (s *Store) SecretsOn(ctx context.Context, keyring string, version uint32, after kms.SecretRef, limit int) ([]kms.BoundSecret, error) {
	found, err := s.rows.SecretsOfVersion(ctx, sqlitedb.SecretsOfVersionParams{
		Keyring: keyring, KeyringVersion: int64(version),
		Volume: after.Volume, Purpose: after.Purpose, Version: int64(after.Version), Most: most(limit),
	})
	if err != nil {
		return nil, fmt.Errorf("reading the secrets of keyring/%s@%d: %w", keyring, version, err)
	}
	return each(found, func(r sqlitedb.SecretsOfVersionRow) kms.BoundSecret {
		return kms.BoundSecret{Secret: toSecret(r.Secret), Machine: r.Machine, EK: r.EK, AK: r.AK}
	}), nil
}

// loadKeyrings loads what a change of keyrings, or of what they wrap, depends on.
func (l *loader) loadKeyrings(key kms.Key) error {
	if key.Keyring != "" {
		versions, err := l.rows.VersionsOfKeyring(l.ctx, key.Keyring)
		if err != nil {
			return err
		}
		dependents, err := l.rows.DependentsOfKeyring(l.ctx, key.Keyring)
		if err != nil {
			return err
		}
		uses, err := l.rows.UsesOfKeyring(l.ctx, key.Keyring)
		if err != nil {
			return err
		}
		l.state.Keyring, l.state.Dependents = each(versions, toKeyringVersion), each(dependents, toDependents)
		l.state.Uses = each(uses, toKeyringUse)
	}
	if key.ServiceKeys {
		found, err := l.rows.ServiceKeys(l.ctx)
		if err != nil {
			return err
		}
		l.state.ServiceKeys = each(found, toServiceKey)
	}
	return nil
}

// putKeyrings adds versions before anything can name them.
func (p *putter) putKeyrings(o kms.Outcome) error {
	for _, v := range o.NewKeyrings {
		if err := addKeyringVersion(p.rows, v); err != nil {
			return fmt.Errorf("keyring %s@%d: %w", v.Keyring, v.Version, translate(err))
		}
	}
	for _, v := range o.Keyrings {
		if err := p.changeKeyring(v); err != nil {
			return fmt.Errorf("keyring %s@%d: %w", v.Keyring, v.Version, translate(err))
		}
	}
	return nil
}

func (p *putter) changeKeyring(v kms.KeyringVersion) error {
	n, err := p.rows.ChangeKeyringVersion(p.ctx, sqlitedb.ChangeKeyringVersionParams{
		Keyring: v.Keyring, Version: int64(v.Version), Status: string(v.Status),
		Changed: fromTime(v.Changed), ChangedBy: v.ChangedBy, DestroyAt: fromTime(v.DestroyAt),
	})
	switch {
	case err != nil:
		return err
	case n == 0:
		return kms.ErrNotFound
	case v.Status == kms.KeyringDestroyed:
		return p.rows.DropWrappers(p.ctx, sqlitedb.DropWrappersParams{Keyring: v.Keyring, Version: int64(v.Version)})
	}
	return nil
}

func (p *putter) moveSecrets(secrets []kms.MovedSecret) error {
	for _, s := range secrets {
		n, err := p.rows.MoveSecret(p.ctx, sqlitedb.MoveSecretParams{
			Volume: s.Volume, Purpose: s.Purpose, Version: int64(s.Version), Was: s.Was,
			Keyring: s.Keyring, KeyringVersion: int64(s.KeyringVersion), Wrapped: s.Wrapped,
		})
		if err == nil && n == 0 {
			err = kms.ErrChanged
		}
		if err != nil {
			return fmt.Errorf("%s secret %s@%d: %w", s.Purpose, s.Volume, s.Version, translate(err))
		}
	}
	return nil
}

func (p *putter) moveServiceKeys(keys []kms.ServiceKey) error {
	for _, k := range keys {
		n, err := p.rows.MoveServiceKey(p.ctx, sqlitedb.MoveServiceKeyParams{
			Kind: string(k.Kind), ID: k.ID, Wrapped: k.Wrapped, KeyringVersion: int64(k.KeyringVersion),
		})
		if err == nil && n == 0 {
			err = kms.ErrNotFound
		}
		if err != nil {
			return fmt.Errorf("the service's %s key: %w", k.Kind, translate(err))
		}
	}
	return nil
}
