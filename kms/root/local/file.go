package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"keywright.dev/kms/secret"
)

// Create makes a file of mode 0600, under a temporary name first, so that a crash
// leaves a whole file or none. A file that exists is an error that is
// [fs.ErrExist].
func Create(path string, data secret.Bytes) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".root-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data.Expose())
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	// Unlike a rename, a link does not replace what is there.
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Read returns what stands in a file that check accepts, at most limit bytes. A
// missing one is [fs.ErrNotExist].
func Read(path string, limit int, check func(fs.FileInfo) error) (secret.Bytes, error) {
	// A pipe would be waited for before it could be refused.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return secret.Bytes{}, err
	}
	if err := check(info); err != nil {
		return secret.Bytes{}, err
	}
	return secret.Read(f, limit)
}

// Private refuses a file that somebody else can read, write or own.
func Private(info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("its mode is %#o, and others than the owner can reach it: run chmod 600", mode)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("it belongs to uid %d and the service runs as %d: run chown", stat.Uid, os.Geteuid())
	}
	return nil
}

// Credential refuses what is no file of the service manager's, who lets the
// service read it by an access list, and nobody else (systemd.exec(5),
// LoadCredential=).
func Credential(info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	if mode := info.Mode().Perm(); mode&0o007 != 0 {
		return fmt.Errorf("its mode is %#o, and everybody can reach it: no credential of a service manager", mode)
	}
	return nil
}

// CredentialPath returns where the credential of a name is in the folder that the
// service manager made.
func CredentialPath(folder, name string) (string, error) {
	if name == "" || name != filepath.Base(name) || name == "." || name == ".." {
		return "", errors.New("a credential's name is that of a file, without a folder")
	}
	if folder == "" {
		return "", errors.New("the service manager passed no credentials: LoadCredential= in its unit does")
	}
	return filepath.Join(folder, name), nil
}
