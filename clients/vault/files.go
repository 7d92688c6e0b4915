package vault

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"keywright.dev/kms/root/local"
	"keywright.dev/kms/secret"
)

// maxFile bounds a file with a credential or certificates, in bytes.
const maxFile = 256 << 10

// files reads what a URI names.
type files struct {
	credentials string // the folder of those without a path; empty where there is none
}

// private reads a file that not everybody can read.
func (f files) private(name string) (secret.Bytes, error) {
	return f.read(name, func(info fs.FileInfo) error {
		if mode := info.Mode().Perm(); mode&0o007 != 0 {
			return fmt.Errorf("its mode is %#o, and everybody can reach it: run chmod o-rwx", mode)
		}
		return regular(info)
	})
}

// public reads a file whose permissions are not ours to judge.
func (f files) public(name string) (secret.Bytes, error) { return f.read(name, regular) }

func regular(info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return errors.New("it is not a regular file")
	}
	return nil
}

func (f files) read(name string, check func(fs.FileInfo) error) (secret.Bytes, error) {
	path := name
	if !filepath.IsAbs(name) {
		var err error
		if path, err = local.CredentialPath(f.credentials, name); err != nil {
			return secret.Bytes{}, fmt.Errorf("%s: %w", name, err)
		}
	}
	text, err := local.Read(path, maxFile, check)
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
