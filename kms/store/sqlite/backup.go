package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"keywright.dev/kms"
)

// Suffixes of copies that are being made.
const (
	partialSuffix   = ".partial"
	restoringSuffix = ".restoring"
	// replacedSuffix is followed by a number, which grows with each restore.
	replacedSuffix = ".replaced-"
	// aloneSuffix is that of a write-ahead log whose database was gone.
	aloneSuffix = "-wal-alone"
)

// Backup writes a copy of the store, as it is when Backup begins, to a new file
// at path; changes and queries go on. The copy is made as path.partial, checked,
// synced, and only then gets its name, so that what stands at path is whole. A
// file that stands there already is [kms.ErrExists].
//
// Like the store, the copy holds secrets only in wrapped form; it opens where
// one of the roots of trust is.
func (s *Store) Backup(ctx context.Context, path string) error {
	release, err := acquire(ctx, s.backingUp)
	if err != nil {
		return err
	}
	defer release()
	if err := s.backup(ctx, path); err != nil {
		return fmt.Errorf("backing up store %s to %s: %w", s.path, path, err)
	}
	return nil
}

func (s *Store) backup(ctx context.Context, path string) error {
	partial := path + partialSuffix
	if err := mustNotExist(path); err != nil {
		return err
	}
	if err := copyStore(ctx, s.read, partial); err != nil {
		return errors.Join(err, removeDatabase(partial))
	}
	if err := os.Rename(partial, path); err != nil {
		return err
	}
	return syncFile(filepath.Dir(path))
}

// CheckBackup returns why [Store.Backup] can write no file at path; nil where it
// can, as far as is known without writing it.
func CheckBackup(path string) error {
	if err := mustNotExist(path); err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return &fs.PathError{Op: "write", Path: dir, Err: err}
	}
	return nil
}

func mustNotExist(path string) error {
	there, err := exists(path)
	if err == nil && there {
		err = fmt.Errorf("%s: %w", path, kms.ErrExists)
	}
	return err
}

// Restoration says what is restored, and where.
type Restoration struct {
	// From is a backup, or any store that no process has open.
	From string
	// Path is where the store shall be.
	Path string
	// Replace permits that a store stands there.
	Replace bool
}

// Restore makes of a backup the store at r.Path. It checks the backup first,
// and refuses one that is damaged, of a newer version, or no store at all; a
// store that another process has open; and, unless r.Replace is set, a store
// that is there: [kms.ErrExists]. What is replaced is kept beside the new one,
// and its path returned; no later Restore touches it.
//
// Run by root, it gives what it makes to the owner of the store's folder, for
// whom the service runs.
//
// Killed at any point, Restore has either changed nothing, or the next [Open]
// completes it. The restored store has no challenge keys: the service makes a
// new one, and no challenge made before is accepted.
func Restore(ctx context.Context, r Restoration) (replaced string, err error) {
	replaced, err = restore(ctx, r)
	if err != nil {
		return "", fmt.Errorf("restoring %s to store %s: %w", r.From, r.Path, err)
	}
	return replaced, nil
}

func restore(ctx context.Context, r Restoration) (replaced string, err error) {
	lock, err := claim(r.Path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := adopt(lock.Name()); err != nil {
		return "", err
	}
	if _, err := completeRestore(r.Path); err != nil {
		return "", err
	}
	if !r.Replace {
		if err := mustNotExist(r.Path); err != nil {
			return "", err
		}
	}
	if err := prepareRestore(ctx, r); err != nil {
		return "", err
	}
	return completeRestore(r.Path)
}

// prepareRestore copies the backup to where [completeRestore] finds it.
func prepareRestore(ctx context.Context, r Restoration) error {
	if err := inspect(r.From); err != nil {
		return err
	}
	if err := setLogAside(r.Path); err != nil {
		return err
	}
	db, err := openDB(r.From, readerOptions())
	if err != nil {
		return err
	}
	restoring := r.Path + restoringSuffix
	partial := restoring + partialSuffix
	if err := errors.Join(copyStore(ctx, db, partial), db.Close()); err != nil {
		return errors.Join(damaged(err), removeDatabase(partial))
	}
	if err := adopt(partial); err != nil {
		return errors.Join(err, removeDatabase(partial))
	}
	// From here on the restore takes place, whatever happens.
	if err := os.Rename(partial, restoring); err != nil {
		return err
	}
	return syncFile(filepath.Dir(restoring))
}

// completeRestore puts a store that was prepared in its place, and returns where
// the one before it is kept; empty where there was none. Each step can be
// repeated, since the one before last is what it starts from.
func completeRestore(path string) (replaced string, err error) {
	if err := removeDatabase(path + restoringSuffix + partialSuffix); err != nil {
		return "", err
	}
	ready, err := exists(path + restoringSuffix)
	if err != nil || !ready {
		return "", err
	}
	if replaced, err = setAside(path); err != nil {
		return "", err
	}
	if err := os.Rename(path+restoringSuffix, path); err != nil {
		return "", err
	}
	return replaced, syncFile(filepath.Dir(path))
}
