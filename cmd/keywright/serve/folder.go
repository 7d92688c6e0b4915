package serve

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"keywright.dev/cmd/keywright/config"
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
		return fmt.Errorf("opening the data folder: the mode of %s is %#o, and others can enter it: run chmod 700 %s",
			data, info.Mode().Perm(), data)
	}
	return nil
}

// rootChoice is where the root key was found.
type rootChoice struct {
	root *file.Root
	path string
	// credential says that the service manager passed it.
	credential bool
}

// openRoot opens the root key, and makes one for a data folder that is new.
func openRoot(s config.Server, credentials string) (rootChoice, error) {
	if s.RootKey != "" {
		root, err := file.Open(s.RootKey)
		return rootChoice{root: root, path: s.RootKey}, err
	}
	if path := filepath.Join(credentials, rootFile); credentials != "" && isFile(path) {
		root, err := file.OpenCredential(path)
		return rootChoice{root, path, true}, err
	}
	path := filepath.Join(s.Data, rootFile)
	root, err := file.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		root, err = createRoot(s.Data, path)
	}
	return rootChoice{root: root, path: path}, err
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
