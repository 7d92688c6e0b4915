package sqlite

import (
	"errors"
	"fmt"

	driver "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"keywright.dev/kms"
)

// code returns SQLite's extended result code of err, or 0.
func code(err error) int {
	var e *driver.Error
	if errors.As(err, &e) {
		return e.Code()
	}
	return 0
}

// translate makes of a write that failed the error that package kms documents
// for it. SQLite's text names columns, never values.
func translate(err error) error {
	switch code(err) {
	case 0:
		return err
	case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
		return fmt.Errorf("%w: %v", kms.ErrExists, err)
	case sqlite3.SQLITE_CONSTRAINT_TRIGGER:
		return kms.ErrRetired // the one thing that a trigger refuses
	case sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
		return fmt.Errorf("the row it belongs to: %w: %v", kms.ErrNotFound, err)
	}
	switch code(err) & 0xff {
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_NOMEM:
		return fmt.Errorf("%w: %w", kms.ErrUnavailable, err)
	}
	return err
}

// isTransient reports whether a commit that failed this way left the disk in a
// state that is known: nothing of it was written, and the next may succeed.
func isTransient(err error) bool {
	switch code(err) & 0xff {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_NOMEM:
		return true
	}
	return false
}
