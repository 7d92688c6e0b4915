package sqlite

import (
	"context"
	"fmt"

	"keywright.dev/kms"
	"keywright.dev/kms/store/sqlite/sqlitedb"
)

// KeyringUses implements [kms.KeyringUses].
func (s *Store) KeyringUses(ctx context.Context) ([]kms.KeyringUse, error) {
	found, err := s.rows.KeyringUses(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading which keyrings served the key API: %w", err)
	}
	return each(found, func(r sqlitedb.KeyringUse) kms.KeyringUse {
		return kms.KeyringUse{Keyring: r.Keyring, Version: uint32(r.Version), First: toTime(r.First)}
	}), nil
}

func (p *putter) putUses(uses []kms.KeyringUse) error {
	for _, u := range uses {
		if err := p.rows.AddKeyringUse(p.ctx, sqlitedb.AddKeyringUseParams{
			Keyring: u.Keyring, Version: int64(u.Version), First: fromTime(u.First),
		}); err != nil {
			return fmt.Errorf("use of keyring/%s@%d: %w", u.Keyring, u.Version, translate(err))
		}
	}
	return nil
}
