// Package file is the embedded root of trust: an AES-256 key in a file.
//
// Invariants:
//   - The file belongs to the user that runs the service and nobody else can
//     read or write it; a file with wider permissions is refused. A credential
//     is systemd's to guard: see [OpenCredential].
//   - The root's name is that of its key: the file may move, with its folder or
//     into a credential, and still opens what it wrapped.
//   - A new key is durable, with its directory entry, before it wraps anything.
//   - An existing file is never replaced.
//
// It refuses to protect against whoever can read the file: the host's root, its
// backups, a stolen disk. Use another root where that matters.
package file

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"keywright.dev/kms/root"
	"keywright.dev/kms/secret"
)

const (
	keySize = 32
	// header is the first line of a key file, the key in base64 is the second.
	header  = "keywright-root-v1\n"
	maxFile = 256
	// formatV1 is the first byte of what Wrap returns.
	formatV1 = 1

	nameLabel = "keywright/root-file-name/v1"
	nameSize  = 16
)

// Root is a key file, read into memory.
type Root struct {
	uri  string
	aead func() (cipher.AEAD, error)
}

// Create makes a key file with a key from random. A file that exists is an
// error that is [fs.ErrExist].
func Create(path string, random io.Reader) error {
	key, err := secret.Random(random, keySize)
	if err != nil {
		return fmt.Errorf("making a root key: %w", err)
	}
	defer key.Wipe()
	text := secret.New(base64.StdEncoding.AppendEncode([]byte(header), key.Expose()))
	defer text.Wipe()
	if err := writeDurably(path, text); err != nil {
		return fmt.Errorf("writing root key file %s: %w", path, err)
	}
	return nil
}

// writeDurably creates path under a temporary name first, so that a crash
// leaves a whole file or none.
func writeDurably(path string, text secret.Bytes) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".root-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text.Expose())
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	// Unlike a rename, a link does not replace what is there.
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Open reads a key file. A missing one is [fs.ErrNotExist].
func Open(path string) (*Root, error) { return open(path, checkAccess) }

// OpenCredential reads a key file that the service manager passes as a
// credential (systemd.exec(5), LoadCredential=). It belongs to the manager, who
// lets the service read it by an access list, and nobody else.
func OpenCredential(path string) (*Root, error) { return open(path, checkCredential) }

func open(path string, check func(fs.FileInfo) error) (*Root, error) {
	key, err := readKey(path, check)
	if err != nil {
		return nil, fmt.Errorf("opening root key file %s: %w", path, err)
	}
	defer key.Wipe()
	block, err := aes.NewCipher(key.Expose())
	if err != nil {
		return nil, fmt.Errorf("opening root key file %s: %w", path, err)
	}
	uri, err := nameOf(key)
	if err != nil {
		return nil, fmt.Errorf("opening root key file %s: %w", path, err)
	}
	// The closure keeps the key schedule out of reach of a printed Root.
	return &Root{uri, func() (cipher.AEAD, error) { return cipher.NewGCMWithRandomNonce(block) }}, nil
}

// nameOf names a key by 16 bytes derived from it, which tell nothing about it.
func nameOf(key secret.Bytes) (string, error) {
	id, err := hkdf.Key(sha256.New, key.Expose(), nil, nameLabel, nameSize)
	if err != nil {
		return "", fmt.Errorf("naming the key: %w", err)
	}
	return "file:" + hex.EncodeToString(id), nil
}

func readKey(path string, check func(fs.FileInfo) error) (secret.Bytes, error) {
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
	text, err := secret.Read(f, maxFile)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer text.Wipe()
	return parseKey(text)
}

// checkAccess refuses a file that somebody else can read, write or own.
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

func checkCredential(info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	if mode := info.Mode().Perm(); mode&0o007 != 0 {
		return fmt.Errorf("its mode is %#o, and everybody can reach it: no credential of a service manager", mode)
	}
	return nil
}

func parseKey(text secret.Bytes) (secret.Bytes, error) {
	data := text.Expose()
	want := len(header) + base64.StdEncoding.EncodedLen(keySize)
	if len(data) == want+1 && data[want] == '\n' {
		data = data[:want]
	}
	if len(data) != want || string(data[:len(header)]) != header {
		return secret.Bytes{}, errors.New("it is not a root key file: want a line keywright-root-v1 and 32 bytes in base64")
	}
	key := make([]byte, base64.StdEncoding.DecodedLen(len(data)-len(header)))
	n, err := base64.StdEncoding.Strict().Decode(key, data[len(header):])
	if err != nil || n != keySize {
		clear(key)
		return secret.Bytes{}, errors.New("its second line is not 32 bytes in base64")
	}
	return secret.New(key[:n]), nil
}

// URI returns file: and 32 hex digits that name the key, wherever its file is.
func (r *Root) URI() string { return r.uri }

// Version is empty: a key file has one key.
func (r *Root) Version(context.Context) (string, error) { return "", nil }

// Wrap returns a version byte, the nonce, the ciphertext and the tag of
// AES-256-GCM with context as additional data.
func (r *Root) Wrap(ctx context.Context, key secret.Bytes, context []byte) (root.Wrapped, error) {
	aead, err := r.ready(ctx)
	if err != nil {
		return root.Wrapped{}, fmt.Errorf("wrapping under %s: %w", r.uri, err)
	}
	return root.Wrapped{Ciphertext: aead.Seal([]byte{formatV1}, nil, key.Expose(), context)}, nil
}

// Unwrap fails with [root.ErrDoesNotOpen], or since ctx has ended.
func (r *Root) Unwrap(ctx context.Context, ciphertext, context []byte) (secret.Bytes, error) {
	aead, err := r.ready(ctx)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("unwrapping under %s: %w", r.uri, err)
	}
	if len(ciphertext) == 0 || ciphertext[0] != formatV1 {
		return secret.Bytes{}, fmt.Errorf("unwrapping under %s: %w", r.uri, root.ErrDoesNotOpen)
	}
	key, err := aead.Open(nil, nil, ciphertext[1:], context)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("unwrapping under %s: %w", r.uri, root.ErrDoesNotOpen)
	}
	return secret.New(key), nil
}

func (r *Root) ready(ctx context.Context) (cipher.AEAD, error) {
	if err := ctx.Err(); err != nil {
		return nil, errors.Join(root.ErrUnavailable, err)
	}
	return r.aead()
}
