package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Modes of what the store makes.
const (
	dirMode  = 0o700
	fileMode = 0o600
)

// Suffixes of the files beside the database.
const (
	lockSuffix = ".lock"
	walSuffix  = "-wal"
	shmSuffix  = "-shm"
)

// claim locks the store at path for this process, until the file is closed.
// SQLite's own locks would let two servers take turns.
func claim(path string) (*os.File, error) {
	if err := MakeDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(path+lockSuffix, os.O_CREATE|os.O_RDWR, fileMode)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		err = fmt.Errorf("another process has it open: it holds the lock %s; stop it first", lock.Name())
	case err != nil:
		err = fmt.Errorf("locking %s: %w", lock.Name(), err)
	default:
		return lock, nil
	}
	return nil, errors.Join(err, lock.Close())
}

// MakeDir makes the directory of a store and what is missing above it, with mode
// 0700. Each is synced into the one above, so that no store is lost with the name
// of its directory.
func MakeDir(dir string) error {
	switch _, err := os.Stat(dir); {
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	parent := filepath.Dir(dir)
	if err := MakeDir(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncFile(parent)
}

// makeFile makes an empty file durably where there is none, so that SQLite,
// which gives its other files the same mode, finds it readable by its owner
// only. It refuses where a write-ahead log stands without its database: SQLite
// would delete it.
func makeFile(path string) error {
	if err := checkOrphan(path); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, fileMode)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err != nil:
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return syncFile(filepath.Dir(path))
}

func checkOrphan(path string) error {
	database, errDatabase := exists(path)
	wal, errWAL := exists(path + walSuffix)
	if err := errors.Join(errDatabase, errWAL); err != nil {
		return err
	}
	if wal && !database {
		return fmt.Errorf("%s is there, but its database %s is not: put that back, or restore a backup",
			path+walSuffix, path)
	}
	return nil
}

// syncFile syncs a file or a directory to disk.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// exists reports whether there is something at path.
func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// remove removes a file if it is there.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
