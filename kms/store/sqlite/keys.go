package sqlite

import (
	"context"
	"fmt"

	"keywright.dev/kms"
	"keywright.dev/kms/store/sqlite/sqlitedb"
)

// Keyrings implements [kms.ServiceKeys].
func (s *Store) Keyrings(ctx context.Context) (versions []kms.KeyringVersion, err error) {
	err = s.snapshot(ctx, func(rows *sqlitedb.Queries) error {
		versions, err = keyrings(ctx, rows)
		return err
	})
	return versions, err
}

func keyrings(ctx context.Context, rows *sqlitedb.Queries) ([]kms.KeyringVersion, error) {
	found, err := rows.KeyringVersions(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading keyring versions: %w", err)
	}
	wrappers, err := rows.Wrappers(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading keyring versions: %w", err)
	}
	versions := each(found, toKeyringVersion)
	for i := range versions {
		v := &versions[i]
		// Both are in the same order.
		for len(wrappers) > 0 && wrappers[0].Keyring == v.Keyring && wrappers[0].Version == int64(v.Version) {
			v.Wrappers = append(v.Wrappers, toWrapper(wrappers[0]))
			wrappers = wrappers[1:]
		}
	}
	return versions, nil
}

func toWrapper(r sqlitedb.Wrapper) kms.Wrapper {
	return kms.Wrapper{Root: r.Root, Version: r.RootVersion, Wrapped: r.Wrapped}
}

func toKeyringVersion(r sqlitedb.KeyringVersion) kms.KeyringVersion {
	return kms.KeyringVersion{
		Keyring: r.Keyring, Version: uint32(r.Version), Status: kms.KeyringStatus(r.Status), Created: toTime(r.Created),
		Changed: toTime(r.Changed), ChangedBy: r.ChangedBy, DestroyAt: toTime(r.DestroyAt),
	}
}

// LeaseEpoch implements [kms.ServiceKeys].
func (s *Store) LeaseEpoch(ctx context.Context) (uint64, error) {
	epoch, err := s.rows.LeaseEpoch(ctx)
	if err != nil {
		return 0, fmt.Errorf("reading the epoch of leases: %w", err)
	}
	return uint64(epoch), nil
}

// ServiceKeys implements [kms.ServiceKeys].
func (s *Store) ServiceKeys(ctx context.Context) ([]kms.ServiceKey, error) {
	found, err := s.rows.ServiceKeys(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading service keys: %w", err)
	}
	return each(found, toServiceKey), nil
}

func toServiceKey(r sqlitedb.ServiceKey) kms.ServiceKey {
	return kms.ServiceKey{
		Kind: kms.ServiceKeyKind(r.Kind), ID: r.ID, Public: r.Public, KeyringVersion: uint32(r.KeyringVersion),
		Wrapped: r.Wrapped, Created: toTime(r.Created),
	}
}

// AddKeys implements [kms.ServiceKeys]. What drop names goes first, so that a
// key can be replaced.
func (s *Store) AddKeys(ctx context.Context, versions []kms.KeyringVersion, keys []kms.ServiceKey, drop []kms.ServiceKey) error {
	return s.writer.write(ctx, func(rows *sqlitedb.Queries) error {
		if err := dropServiceKeys(rows, drop); err != nil {
			return err
		}
		for _, v := range versions {
			if err := addKeyringVersion(rows, v); err != nil {
				return fmt.Errorf("adding keyring/%s@%d: %w", v.Keyring, v.Version, translate(err))
			}
		}
		return addServiceKeys(rows, keys)
	})
}

func dropServiceKeys(rows *sqlitedb.Queries, keys []kms.ServiceKey) error {
	for _, k := range keys {
		if err := rows.DropServiceKey(context.Background(), sqlitedb.DropServiceKeyParams{Kind: string(k.Kind), ID: k.ID}); err != nil {
			return fmt.Errorf("dropping the service's %s key: %w", k.Kind, err)
		}
	}
	return nil
}

func addServiceKeys(rows *sqlitedb.Queries, keys []kms.ServiceKey) error {
	for _, k := range keys {
		if err := rows.AddServiceKey(context.Background(), sqlitedb.AddServiceKeyParams{
			Kind: string(k.Kind), ID: k.ID, Public: blob(k.Public), KeyringVersion: int64(k.KeyringVersion),
			Wrapped: k.Wrapped, Created: fromTime(k.Created),
		}); err != nil {
			return fmt.Errorf("adding the service's %s key: %w", k.Kind, translate(err))
		}
	}
	return nil
}

func addKeyringVersion(rows *sqlitedb.Queries, v kms.KeyringVersion) error {
	err := rows.AddKeyringVersion(context.Background(), sqlitedb.AddKeyringVersionParams{
		Keyring: v.Keyring, Version: int64(v.Version), Status: string(v.Status), Created: fromTime(v.Created),
		Changed: fromTime(v.Changed), ChangedBy: v.ChangedBy, DestroyAt: fromTime(v.DestroyAt),
	})
	if err != nil {
		return err
	}
	for _, w := range v.Wrappers {
		if err := putWrapper(context.Background(), rows, kms.VersionWrapper{Keyring: v.Keyring, Version: v.Version, Wrapper: w}); err != nil {
			return err
		}
	}
	return nil
}

func putWrapper(ctx context.Context, rows *sqlitedb.Queries, w kms.VersionWrapper) error {
	return rows.PutWrapper(ctx, sqlitedb.PutWrapperParams{
		Keyring: w.Keyring, Version: int64(w.Version), Root: w.Wrapper.Root, RootVersion: w.Wrapper.Version, Wrapped: w.Wrapper.Wrapped,
	})
}
