package sqlite

import (
	"context"
	"errors"
	"fmt"

	"keywright.dev/kms"
	"keywright.dev/kms/store/sqlite/sqlitedb"
)

// LastFailure returns why the last change could not be written, such as that the
// disk is full; nil once one could. A change that was refused for what it says
// tells nothing about the disk.
func (s *Store) LastFailure() error {
	if err := s.writer.last.Load(); err != nil {
		return *err
	}
	return nil
}

// TryWriting writes what the database's header says already, so that a store to
// which nobody turns any more finds out that it takes changes again.
func (s *Store) TryWriting(ctx context.Context) error {
	version, err := schemaVersion()
	if err != nil {
		return err
	}
	statement := fmt.Sprintf("PRAGMA user_version = %d", version)
	err = s.writer.write(ctx, func(*sqlitedb.Queries) error {
		_, err := s.writer.conn.ExecContext(context.Background(), statement)
		return translate(err)
	})
	if err != nil {
		return fmt.Errorf("trying to write to store %s: %w", s.path, err)
	}
	return nil
}

func (w *writer) remember(result error) {
	switch {
	case result == nil:
		w.last.Store(nil)
	case errors.Is(result, kms.ErrUnavailable) && (code(result) != 0 || w.failure() != nil):
		w.last.Store(&result)
	}
}
