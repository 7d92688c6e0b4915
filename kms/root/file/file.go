// Package file is the embedded root of trust: an AES-256 key in a file, which may
// be under a passphrase.
//
// Invariants:
//   - The file belongs to the user that runs the service and nobody else can
//     read or write it; a file with wider permissions is refused. A credential
//     is systemd's to guard: see [OpenCredential].
//   - The root's name is that of its key: the file may move, with its folder or
//     into a credential, or under another passphrase, and still opens what it
//     wrapped.
//   - A new key is durable, with its directory entry, before it wraps anything.
//   - An existing file is never replaced.
//   - A passphrase comes from a descriptor, a credential or a private file, and is
//     wiped once the key is open.
//
// It refuses to protect against whoever can read the file and the passphrase: the
// host's root, its backups where they hold both. Use another root where that
// matters. What Argon2id and AES-GCM leave in memory of a passphrase and a key
// schedule, the garbage collector reuses; nothing wipes it.
package file

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"keywright.dev/kms/root"
	"keywright.dev/kms/root/local"
	"keywright.dev/kms/secret"
)

const (
	nameLabel = "keywright/root-file-name/v1"
	nameSize  = 16
)

// Root is a key file, read into memory.
type Root struct {
	uri string
	key secret.Bytes
}

// Create makes a key file with a key from random, under no passphrase. A file that
// exists is an error that is [fs.ErrExist].
func Create(path string, random io.Reader) error {
	key, err := newKey(random)
	if err != nil {
		return err
	}
	defer key.Wipe()
	return write(path, renderPlain(key))
}

func newKey(random io.Reader) (secret.Bytes, error) {
	key, err := secret.Random(random, root.KeySize)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("making a root key: %w", err)
	}
	return key, nil
}

// write wipes text.
func write(path string, text secret.Bytes) error {
	defer text.Wipe()
	if err := local.Create(path, text); err != nil {
		return fmt.Errorf("writing root key file %s: %w", path, err)
	}
	return nil
}

// Open reads a key file that is under no passphrase. A missing one is
// [fs.ErrNotExist].
func Open(path string) (*Root, error) {
	return open(context.Background(), source{path: path, check: local.Private})
}

// OpenCredential reads a key file that the service manager passes as a
// credential (systemd.exec(5), LoadCredential=). It belongs to the manager, who
// lets the service read it by an access list, and nobody else.
func OpenCredential(path string) (*Root, error) {
	return open(context.Background(), source{path: path, check: local.Credential})
}

// source is where a key comes from.
type source struct {
	path  string
	check func(fs.FileInfo) error
	// credential says that the service manager made it.
	credential bool
	// passphrase reads it; nil where there is none.
	passphrase func() (secret.Bytes, error)
}

func open(ctx context.Context, s source) (*Root, error) {
	key, err := local.Await(ctx, s.read)
	if err != nil {
		return nil, fmt.Errorf("opening root key file %s: %w", s.path, err)
	}
	r, err := newRoot(key)
	if err != nil {
		return nil, fmt.Errorf("opening root key file %s: %w", s.path, err)
	}
	return r, nil
}

// newRoot takes ownership of key.
func newRoot(key secret.Bytes) (*Root, error) {
	uri, err := nameOf(key)
	if err != nil {
		key.Wipe()
		return nil, err
	}
	return &Root{uri, key}, nil
}

func (s source) read() (secret.Bytes, error) {
	text, err := local.Read(s.path, maxFile, s.check)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer text.Wipe()
	if !isProtected(text) {
		if s.passphrase != nil {
			return secret.Bytes{}, errNoPassphrase
		}
		return parsePlain(text)
	}
	if s.passphrase == nil {
		return secret.Bytes{}, errPassphraseWanted
	}
	locked, err := parseProtected(string(text.Expose()))
	if err != nil {
		return secret.Bytes{}, err
	}
	passphrase, err := s.passphrase()
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("reading its passphrase: %w", err)
	}
	defer passphrase.Wipe()
	return locked.open(passphrase)
}

// nameOf names a key by 16 bytes derived from it, which tell nothing about it.
func nameOf(key secret.Bytes) (string, error) {
	id, err := hkdf.Key(sha256.New, key.Expose(), nil, nameLabel, nameSize)
	if err != nil {
		return "", fmt.Errorf("naming the key: %w", err)
	}
	return "file:" + hex.EncodeToString(id), nil
}

// URI returns file: and 32 hex digits that name the key, wherever its file is.
func (r *Root) URI() string { return r.uri }

// Version is empty: a key file has one key.
func (r *Root) Version(context.Context) (string, error) { return "", nil }

// Wrap encrypts with AES-256-GCM, context being additional data.
func (r *Root) Wrap(ctx context.Context, key secret.Bytes, context []byte) (root.Wrapped, error) {
	if err := ready(ctx); err != nil {
		return root.Wrapped{}, fmt.Errorf("wrapping under %s: %w", r.uri, err)
	}
	ciphertext, err := local.Encrypt(r.key, key, context)
	if err != nil {
		return root.Wrapped{}, fmt.Errorf("wrapping under %s: %w", r.uri, err)
	}
	return root.Wrapped{Ciphertext: ciphertext}, nil
}

// Unwrap fails with [root.ErrDoesNotOpen], or since ctx has ended.
func (r *Root) Unwrap(ctx context.Context, ciphertext, context []byte) (secret.Bytes, error) {
	if err := ready(ctx); err != nil {
		return secret.Bytes{}, fmt.Errorf("unwrapping under %s: %w", r.uri, err)
	}
	key, err := local.Decrypt(r.key, ciphertext, context)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("unwrapping under %s: %w", r.uri, err)
	}
	return key, nil
}

func ready(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return errors.Join(root.ErrUnavailable, err)
	}
	return nil
}
