package sqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// setAside moves a store and its write-ahead log away, so that SQLite can't take
// the old log for the new store's, and returns where the store is then. A log
// without its store is what an interruption between the two left.
func setAside(path string) (replaced string, err error) {
	number, err := lastReplaced(path)
	if err != nil {
		return "", err
	}
	there, err := exists(path)
	if err != nil {
		return "", err
	}
	if there {
		replaced = replacedPath(path, number+1)
		if err := errors.Join(os.Rename(path, replaced), syncFile(filepath.Dir(path))); err != nil {
			return "", err
		}
	}
	log, err := exists(path + walSuffix)
	if err == nil && log {
		if replaced == "" {
			replaced = replacedPath(path, number)
		}
		err = moveNew(path+walSuffix, replaced+walSuffix)
	}
	return replaced, errors.Join(err, remove(path+shmSuffix), syncFile(filepath.Dir(path)))
}

// setLogAside moves a write-ahead log away whose database was gone before a
// restore began, so that it is not taken for that of a store kept earlier.
func setLogAside(path string) error {
	there, err := exists(path)
	if err != nil || there {
		return err
	}
	log, err := exists(path + walSuffix)
	if err != nil || !log {
		return err
	}
	number, err := lastReplaced(path)
	if err != nil {
		return err
	}
	return moveNew(path+walSuffix, replacedPath(path, number+1)+aloneSuffix)
}

// moveNew renames a file to a name that none has.
func moveNew(from, to string) error {
	if err := mustNotExist(to); err != nil {
		return err
	}
	return os.Rename(from, to)
}

func replacedPath(path string, number int) string {
	return fmt.Sprintf("%s%s%d", path, replacedSuffix, number)
}

// lastReplaced returns the greatest number that a store kept beside path has; 0
// before the first.
func lastReplaced(path string) (int, error) {
	files, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return 0, err
	}
	last := 0
	for _, f := range files {
		rest, ok := strings.CutPrefix(f.Name(), filepath.Base(path)+replacedSuffix)
		digits, _, _ := strings.Cut(rest, "-")
		if number, err := strconv.Atoi(digits); ok && err == nil {
			last = max(last, number)
		}
	}
	return last, nil
}
