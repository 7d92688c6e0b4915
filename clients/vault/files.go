package vault

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"keywright.dev/kms/secret"
)

// maxFile bounds a file with a credential or certificates, in bytes.
const maxFile = 256 << 10

// files reads what a URI names.
type files struct {
	credentials string // the folder of those without a path; empty where there is none
}

func (f files) path(name string) (string, error) {
	switch {
	case filepath.IsAbs(name):
		return name, nil
	case f.credentials == "":
		return "", fmt.Errorf("%s is the name of a credential, and the service manager passes none: name the file by its absolute path", name)
	default:
		return filepath.Join(f.credentials, name), nil
	}
}

// private reads a file that nobody else may be able to read.
func (f files) private(name string) (secret.Bytes, error) {
	return f.read(name, func(info fs.FileInfo) error {
		if mode := info.Mode().Perm(); mode&0o007 != 0 {
			return fmt.Errorf("its mode is %#o, and everybody can reach it: run chmod o-rwx", mode)
		}
		return nil
	})
}

// public reads a file whose permissions are not ours to judge.
func (f files) public(name string) (secret.Bytes, error) {
	return f.read(name, func(fs.FileInfo) error { return nil })
}

func (f files) read(name string, check func(fs.FileInfo) error) (secret.Bytes, error) {
	path, err := f.path(name)
	if err != nil {
		return secret.Bytes{}, err
	}
	// A pipe would be waited for before it could be refused.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return secret.Bytes{}, err
	}
	if !info.Mode().IsRegular() {
		return secret.Bytes{}, fmt.Errorf("%s is not a regular file", path)
	}
	if err := check(info); err != nil {
		return secret.Bytes{}, fmt.Errorf("%s: %w", path, err)
	}
	text, err := secret.Read(file, maxFile)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("%s: %w", path, err)
	}
	return text, nil
}

// word reads a file that holds one word, such as a token.
func word(text secret.Bytes, err error) (secret.Bytes, error) {
	if err != nil {
		return secret.Bytes{}, err
	}
	defer text.Wipe()
	trimmed := bytes.TrimSpace(text.Expose())
	unprintable := func(r rune) bool { return r <= ' ' || r > '~' }
	if len(trimmed) == 0 || bytes.ContainsFunc(trimmed, unprintable) {
		return secret.Bytes{}, errors.New("it is empty, or not one line of printable ASCII")
	}
	return secret.Copy(trimmed), nil
}
