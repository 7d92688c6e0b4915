package serve

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"keywright.dev/kms/store/sqlite"
)

// Names in the data folder.
const (
	storeFile  = "store.db"
	rootFile   = "root.key"
	socketFile = "operator.sock"
)

// StorePath returns where a data folder's store is.
func StorePath(data string) string { return filepath.Join(data, storeFile) }

// SocketPath returns where a data folder's operator socket is.
func SocketPath(data string) string { return filepath.Join(data, socketFile) }

// prepareFolder makes the data folder and refuses one that others can enter.
func prepareFolder(data string) error {
	// The store makes no folder that is there: this is the one place to sync it.
	if err := sqlite.MakeDir(data); err != nil {
		return fmt.Errorf("making the data folder: %w", err)
	}
	info, err := os.Stat(data)
	switch {
	case err != nil:
		return fmt.Errorf("opening the data folder: %w", err)
	case !info.IsDir():
		return fmt.Errorf("opening the data folder: %s is not a folder", data)
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("opening the data folder: the mode of %s is %#o, and others can enter it%s",
			data, info.Mode().Perm(), adviceOn(data))
	}
	return nil
}

// adviceOn says how to keep others out of a folder. One that is full of other
// things is not ours to close: it may be /tmp.
func adviceOn(data string) string {
	files, err := os.ReadDir(data)
	ours := isFile(StorePath(data)) || isFile(filepath.Join(data, rootFile))
	if err == nil && len(files) > 0 && !ours {
		return ", and it holds other things: name a folder of its own"
	}
	return ": run chmod 700 " + data
}

// checkStore refuses a store that is empty, which a first start that was cut off
// leaves, or a disk that lost it: a new one in its place would hide that. It
// returns whether there is none.
func checkStore(path string) (missing bool, err error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("opening store %s: %w", path, err)
	case info.Mode().IsRegular() && info.Size() == 0:
		return false, fmt.Errorf("opening store %s: it is empty: restore a backup, or remove it if this installation is new", path)
	}
	return false, nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
