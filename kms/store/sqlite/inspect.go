package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	sqlite3 "modernc.org/sqlite/lib"
)

// magic is how every database of SQLite begins (file format, section 1.3.1).
const magic = "SQLite format 3\x00"

var errEmpty = errors.New("it is empty")

// inspectStore is inspect for a store that is opened: one that was just made is
// empty.
func inspectStore(path string) error {
	if err := inspect(path); !errors.Is(err, errEmpty) {
		return err
	}
	return nil
}

// inspect refuses a file that cannot be a store, in words that are not SQLite's.
func inspect(path string) error {
	// A pipe would be waited for.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		err = inspectOpen(f, info)
	}
	return errors.Join(err, f.Close())
}

func inspectOpen(f io.Reader, info fs.FileInfo) error {
	switch {
	case info.IsDir():
		return errors.New("it is a folder: name the file in it")
	case !info.Mode().IsRegular():
		return errors.New("it is no regular file")
	case info.Size() == 0:
		return errEmpty
	}
	head := make([]byte, len(magic))
	if _, err := io.ReadFull(f, head); err != nil || !bytes.Equal(head, []byte(magic)) {
		return errors.New("it is not a database: no keywright store, nor a backup of one")
	}
	return nil
}

// CheckRestore returns why [Restore] would refuse; nil where it would restore, as
// far as is known without doing it. It writes nothing.
func CheckRestore(ctx context.Context, r Restoration) error {
	if err := checkRestore(ctx, r); err != nil {
		return fmt.Errorf("restoring %s to store %s: %w", r.From, r.Path, err)
	}
	return nil
}

func checkRestore(ctx context.Context, r Restoration) error {
	locked, err := exists(r.Path + lockSuffix)
	if err == nil && locked {
		err = tryLock(r.Path)
	}
	if err != nil {
		return err
	}
	if !r.Replace {
		if err := mustNotExist(r.Path); err != nil {
			return err
		}
	}
	if err := inspect(r.From); err != nil {
		return err
	}
	db, err := openDB(r.From, readerOptions())
	if err != nil {
		return err
	}
	return errors.Join(damaged(check(ctx, db)), db.Close())
}

// damaged says what to do about what SQLite cannot read.
func damaged(err error) error {
	switch code(err) & 0xff {
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("it is damaged or cut off, take another backup: %w", err)
	}
	return err
}

// tryLock fails where another process has the store open.
func tryLock(path string) error {
	lock, err := claim(path)
	if err != nil {
		return err
	}
	return lock.Close()
}
