package sqlite

import (
	"context"
	"fmt"

	"keywright.dev/kms"
	"keywright.dev/kms/store/sqlite/sqlitedb"
)

// KeyringUses implements [kms.Reader].
func (s *Store) KeyringUses(ctx context.Context) ([]kms.KeyringUse, error) {
	found, err := s.rows.KeyringUses(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading which keyrings served the key API: %w", err)
	}
	return each(found, toKeyringUse), nil
}

func toKeyringUse(r sqlitedb.KeyringUse) kms.KeyringUse {
	return kms.KeyringUse{
		Keyring: r.Keyring, Version: uint32(r.Version), First: toTime(r.First), Last: toTime(r.Last),
		Wraps: r.Wraps, Unwraps: r.Unwraps, Dismissed: toTime(r.Dismissed), DismissedBy: r.DismissedBy,
	}
}

func (p *putter) putUses(uses []kms.KeyringUse) error {
	for _, u := range uses {
		if err := p.rows.AddKeyringUse(p.ctx, sqlitedb.AddKeyringUseParams{
			Keyring: u.Keyring, Version: int64(u.Version), First: fromTime(u.First), Last: fromTime(u.Last), Wraps: u.Wraps, Unwraps: u.Unwraps,
		}); err != nil {
			return fmt.Errorf("use of keyring/%s@%d: %w", u.Keyring, u.Version, translate(err))
		}
	}
	return nil
}

func (p *putter) dismissUses(uses []kms.KeyringUse) error {
	for _, u := range uses {
		n, err := p.rows.DismissKeyringUse(p.ctx, sqlitedb.DismissKeyringUseParams{
			Keyring: u.Keyring, Version: int64(u.Version), Dismissed: fromTime(u.Dismissed), DismissedBy: u.DismissedBy,
		})
		if err == nil && n == 0 {
			err = kms.ErrNotFound
		}
		if err != nil {
			return fmt.Errorf("use of keyring/%s@%d: %w", u.Keyring, u.Version, translate(err))
		}
	}
	return nil
}
