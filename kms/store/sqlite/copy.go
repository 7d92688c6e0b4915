package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"golang.org/x/mod/sumdb/tlog"
	driver "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"keywright.dev/kms"
	"keywright.dev/kms/store/sqlite/sqlitedb"
)

// copyPages is how many pages are copied before the context is looked at.
const copyPages = 1024

// copyStore copies the store that source reads, as it is at this moment, into a
// file of its own that nothing refers to yet: whole, synced and checked.
func copyStore(ctx context.Context, source *sql.DB, path string) error {
	err := copyWhole(ctx, source, path)
	if code(err)&0xff == sqlite3.SQLITE_FULL {
		return &fs.PathError{Op: "write", Path: path, Err: syscall.ENOSPC}
	}
	return err
}

func copyWhole(ctx context.Context, source *sql.DB, path string) error {
	if err := removeDatabase(path); err != nil {
		return err
	}
	if err := makeFile(path); err != nil {
		return err
	}
	if err := copyDatabase(ctx, source, path); err != nil {
		return err
	}
	if err := finishCopy(ctx, path); err != nil {
		return err
	}
	return syncFile(path)
}

// removeDatabase removes a database with all that SQLite keeps beside it.
func removeDatabase(path string) error {
	return errors.Join(remove(path+walSuffix), remove(path+shmSuffix), remove(path+"-journal"), remove(path))
}

// copyDatabase copies the pages. The transaction keeps the source what it is
// for as long as that takes, without holding up the writer.
func copyDatabase(ctx context.Context, source *sql.DB, path string) error {
	conn, err := source.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // gives it back to the pool
	tx, err := conn.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "SELECT 1 FROM sqlite_schema"); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	err = conn.Raw(func(c any) error { return copyFrom(ctx, c, path) })
	return errors.Join(err, tx.Rollback())
}

// backuper is SQLite's online backup, as the driver's connections have it.
type backuper interface {
	NewBackup(target string) (*driver.Backup, error)
}

func copyFrom(ctx context.Context, source any, path string) error {
	from, ok := source.(backuper)
	if !ok {
		return fmt.Errorf("a connection of type %T can't be backed up", source)
	}
	target, err := dataSource(path, copyOptions())
	if err != nil {
		return err
	}
	backup, err := from.NewBackup(target)
	if err != nil {
		return err
	}
	for more := true; more && err == nil; {
		if err = ctx.Err(); err == nil {
			more, err = backup.Step(copyPages)
		}
	}
	return errors.Join(err, backup.Finish())
}

// finishCopy makes of the pages a store that can be put in place anywhere.
func finishCopy(ctx context.Context, path string) error {
	db, err := openDB(path, copyOptions())
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	err = check(ctx, db)
	if err == nil {
		err = forgetChallenges(ctx, db)
	}
	return errors.Join(err, db.Close())
}

// forgetChallenges drops the keys that challenges are made with: a copy knows
// nothing of challenges redeemed after it was taken, and must accept none that
// were made before it is used.
func forgetChallenges(ctx context.Context, db *sql.DB) error {
	err := sqlitedb.New(db).DropServiceKeysOfKind(ctx, string(kms.ServiceKeyChallenge))
	if err != nil {
		return fmt.Errorf("dropping the challenge keys: %w", err)
	}
	return nil
}

// check reads the whole database and refuses one that is damaged, incomplete,
// of another application or of a newer version.
func check(ctx context.Context, db *sql.DB) error {
	v, err := readVersion(ctx, db)
	if err != nil {
		return err
	}
	if err := v.check(); err != nil {
		return err
	}
	if v.schema == 0 {
		return errors.New("it is empty")
	}
	for _, pragma := range []string{"integrity_check", "foreign_key_check"} {
		if err := checkPragma(ctx, db, pragma); err != nil {
			return err
		}
	}
	return checkLog(ctx, db)
}

// checkPragma demands that a pragma finds nothing: no row, or the row "ok".
func checkPragma(ctx context.Context, db *sql.DB, pragma string) error {
	rows, err := db.QueryContext(ctx, "PRAGMA "+pragma)
	if err != nil {
		return fmt.Errorf("checking it: %w", err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	for rows.Next() {
		var first string
		columns, err := rows.Columns()
		if err != nil {
			return err
		}
		found := make([]any, len(columns))
		found[0] = &first
		for i := range found[1:] {
			found[i+1] = new(any)
		}
		if err := rows.Scan(found...); err != nil {
			return err
		}
		if first != "ok" {
			return fmt.Errorf("it is damaged: %s found: %s", pragma, first)
		}
	}
	return rows.Err()
}

// checkLog demands that of the audit log nothing is missing.
func checkLog(ctx context.Context, db *sql.DB) error {
	var entries, last, hashes, size int64
	err := db.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM entries), (SELECT coalesce(max(seq), 0) FROM entries),
		(SELECT count(*) FROM tree_hashes), size FROM tree_head`).Scan(&entries, &last, &hashes, &size)
	switch {
	case err != nil:
		return fmt.Errorf("checking its audit log: %w", err)
	case entries != last || size > last:
		return errors.New("it is damaged: entries of its audit log are missing")
	case hashes != tlog.StoredHashCount(size):
		return errors.New("it is damaged: hashes of its audit log's tree are missing")
	}
	return nil
}
