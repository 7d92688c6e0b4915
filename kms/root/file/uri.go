package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"keywright.dev/kms/root/local"
	"keywright.dev/kms/secret"
)

const (
	scheme               = "file"
	credential           = "credential"
	passphraseFile       = "passphrase-file"
	passphraseCredential = "passphrase-credential"
	passphraseFD         = "passphrase-fd"

	example = "want file:///PATH, file:///PATH?passphrase-file=/PATH, file:///PATH?passphrase-credential=NAME or file:?credential=NAME"
)

// OpenURI reads the key file that a URI names: file:///PATH, or
// file:?credential=NAME for one in the service manager's folder of credentials,
// which is empty where there is none. Its passphrase is in the private file
// passphrase-file, in the credential passphrase-credential, or comes from the
// descriptor passphrase-fd, which is read to its end and closed. A wrong one is
// [ErrPassphrase].
func OpenURI(ctx context.Context, uri, credentials string) (*Root, error) {
	s, err := locate(uri, credentials)
	if err != nil {
		return nil, err
	}
	return open(ctx, s)
}

// CreateURI makes the key file that a URI names, with a key from random, and under
// the passphrase where it names one. A file that exists is an error that is
// [fs.ErrExist].
func CreateURI(ctx context.Context, uri, credentials string, random io.Reader) (*Root, error) {
	s, err := locate(uri, credentials)
	if err != nil {
		return nil, err
	}
	return s.create(ctx, random, defaultCost())
}

func (s source) create(ctx context.Context, random io.Reader, c cost) (*Root, error) {
	if err := s.absent(); err != nil {
		return nil, fmt.Errorf("making root key file %s: %w", s.path, err)
	}
	key, err := newKey(random)
	if err != nil {
		return nil, err
	}
	text, err := local.Await(ctx, func() (secret.Bytes, error) { return s.render(key.Clone(), random, c) })
	if err == nil {
		err = write(s.path, text)
	}
	if err != nil {
		key.Wipe()
		return nil, fmt.Errorf("making root key file %s: %w", s.path, err)
	}
	return newRoot(key)
}

// absent spares a passphrase where the file could not be made anyway.
func (s source) absent() error {
	if s.credential {
		return errors.New("a credential is made with systemd-creds: make a file, and encrypt that")
	}
	_, err := os.Lstat(s.path)
	if err == nil {
		return fs.ErrExist
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// render returns the file for a key, which it wipes.
func (s source) render(key secret.Bytes, random io.Reader, c cost) (secret.Bytes, error) {
	defer key.Wipe()
	if s.passphrase == nil {
		return renderPlain(key), nil
	}
	passphrase, err := s.passphrase()
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("reading its passphrase: %w", err)
	}
	defer passphrase.Wipe()
	locked, err := protect(key, passphrase, c, random)
	if err != nil {
		return secret.Bytes{}, err
	}
	return secret.New([]byte(locked.render())), nil
}

func locate(uri, credentials string) (source, error) {
	l, err := local.ParseURI(uri, scheme, credential, passphraseFile, passphraseCredential, passphraseFD)
	if err != nil {
		return source{}, fmt.Errorf("reading the URI of a root key file: %w; %s", err, example)
	}
	s, err := place(l, credentials)
	if err == nil {
		s.passphrase, err = passphraseOf(l.Options, credentials)
	}
	if err != nil {
		return source{}, fmt.Errorf("reading the URI of a root key file: %w; %s", err, example)
	}
	return s, nil
}

func place(l local.Location, credentials string) (source, error) {
	name, isCredential := l.Options[credential]
	switch {
	case isCredential && l.Path != "":
		return source{}, errors.New("it names a path and a credential")
	case isCredential:
		path, err := local.CredentialPath(credentials, name)
		return source{path: path, check: local.Credential, credential: true}, err
	case l.Path == "":
		return source{}, errors.New("it names no file")
	default:
		return source{path: l.Path, check: local.Private}, nil
	}
}

// passphraseOf returns how to read the passphrase, or nil where none is named.
func passphraseOf(options map[string]string, credentials string) (func() (secret.Bytes, error), error) {
	var found []func() (secret.Bytes, error)
	if path, ok := options[passphraseFile]; ok {
		if !filepath.IsAbs(path) {
			return nil, errors.New("its passphrase-file is not an absolute path")
		}
		found = append(found, func() (secret.Bytes, error) { return readPassphrase(path, local.Private) })
	}
	if name, ok := options[passphraseCredential]; ok {
		path, err := local.CredentialPath(credentials, name)
		if err != nil {
			return nil, err
		}
		found = append(found, func() (secret.Bytes, error) { return readPassphrase(path, local.Credential) })
	}
	if digits, ok := options[passphraseFD]; ok {
		fd, err := strconv.ParseUint(digits, 10, 16)
		if err != nil || fd == 1 || fd == 2 {
			return nil, errors.New("its passphrase-fd is no number of a descriptor to read")
		}
		found = append(found, func() (secret.Bytes, error) { return drain(int(fd)) })
	}
	switch len(found) {
	case 0:
		return nil, nil //nolint:nilnil // no passphrase is an answer
	case 1:
		return found[0], nil
	default:
		return nil, errors.New("it names more than one passphrase")
	}
}

func readPassphrase(path string, check func(fs.FileInfo) error) (secret.Bytes, error) {
	text, err := local.Read(path, maxPassphrase+1, check)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("%s: %w", path, err)
	}
	passphrase, err := trimmed(text)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("%s: %w", path, err)
	}
	return passphrase, nil
}

// drain reads a descriptor to its end and closes it. One that is not ours to read,
// such as the runtime's own, stays as it is.
func drain(fd int) (secret.Bytes, error) {
	var info syscall.Stat_t
	if err := syscall.Fstat(fd, &info); err != nil {
		return secret.Bytes{}, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	switch info.Mode & syscall.S_IFMT {
	case syscall.S_IFIFO, syscall.S_IFREG, syscall.S_IFCHR:
	default:
		return secret.Bytes{}, fmt.Errorf("descriptor %d is no pipe, file or terminal", fd)
	}
	f := os.NewFile(uintptr(fd), "passphrase")
	defer f.Close()
	text, err := secret.Read(f, maxPassphrase+1)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	return trimmed(text)
}
