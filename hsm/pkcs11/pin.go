package pkcs11

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"keywright.dev/kms/root"
	"keywright.dev/kms/secret"
)

const maxPIN = 256

// readPIN reads a PIN file; one line break at its end is not part of the PIN.
func readPIN(path, credentials string) (secret.Bytes, error) {
	pin, err := readPrivate(path, credentials)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("reading PIN file %s: %w: %w", path, root.ErrRefused, err)
	}
	defer pin.Wipe()
	text := bytes.TrimSuffix(pin.Expose(), []byte("\n"))
	if len(text) == 0 || bytes.ContainsAny(text, "\n\x00") {
		return secret.Bytes{}, fmt.Errorf("reading PIN file %s: %w: it is not one line with a PIN", path, root.ErrRefused)
	}
	return secret.Copy(text), nil
}

func readPrivate(path, credentials string) (secret.Bytes, error) {
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
	check := checkAccess
	if credentials != "" && filepath.Dir(path) == filepath.Clean(credentials) {
		check = checkCredential
	}
	if err := check(info); err != nil {
		return secret.Bytes{}, err
	}
	return secret.Read(f, maxPIN)
}

func checkAccess(info fs.FileInfo) error {
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

// checkCredential knows that a credential belongs to the service manager, who lets
// the service read it by an access list that shows in the group's bits.
func checkCredential(info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	if mode := info.Mode().Perm(); mode&0o007 != 0 {
		return fmt.Errorf("its mode is %#o, and everybody can reach it: no credential of a service manager", mode)
	}
	return nil
}
