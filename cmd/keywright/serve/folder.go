package serve

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"keywright.dev/cmd/keywright/config"
	"keywright.dev/kms"
	"keywright.dev/kms/root/file"
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

// rootChoice is where the root key was found.
type rootChoice struct {
	root *file.Root
	path string
	// credential says that the service manager passed it.
	credential bool
	// made says that this start made it.
	made bool
}

// wrong says which root key a store wants, where err is that the chosen one opens
// none of its keys.
func (c rootChoice) wrong(ctx context.Context, store kms.ServiceKeys, err error) error {
	versions, readErr := store.Keyrings(ctx)
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	var wraps []string
	for _, v := range versions {
		for _, w := range v.Wrappers {
			wraps = append(wraps, w.Root)
		}
	}
	if len(wraps) == 0 || slices.Contains(wraps, c.root.URI()) {
		return err
	}
	return fmt.Errorf("opening keyrings: %s is not the root key of this store, whose keys are wrapped under %s: bring that one back",
		c.path, wraps[0])
}

// openRoot opens the root key, and makes one for a data folder that is new.
func openRoot(s config.Server, credentials string) (rootChoice, error) {
	if s.RootKey != "" {
		root, err := file.Open(s.RootKey)
		return rootChoice{root: root, path: s.RootKey}, err
	}
	if path := filepath.Join(credentials, rootFile); credentials != "" && isFile(path) {
		root, err := file.OpenCredential(path)
		return rootChoice{root: root, path: path, credential: true}, err
	}
	path := filepath.Join(s.Data, rootFile)
	root, err := file.Open(path)
	made := errors.Is(err, fs.ErrNotExist)
	if made {
		root, err = createRoot(s.Data, path)
	}
	return rootChoice{root: root, path: path, made: made}, err
}

// createRoot makes a key where there is no store yet: to an existing store a
// new key is of no use, and would hide that the right one is missing.
func createRoot(data, path string) (*file.Root, error) {
	if isFile(StorePath(data)) {
		return nil, fmt.Errorf("opening root key file %s: it is missing, and without it the store opens nothing: "+
			"bring it back from where you keep its copy, or name it with server.root_key", path)
	}
	if err := file.Create(path, rand.Reader); err != nil {
		return nil, err
	}
	return file.Open(path)
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
