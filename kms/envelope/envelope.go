// Package envelope owns the wrapped-secret format, kw1:
//
//	kw1.<keyring>.<version>.<base64url(salt ‖ commitment ‖ nonce ‖ ciphertext ‖ tag)>
//
// Invariants:
//   - A wrapped secret opens under one keyring version and one [Context] only:
//     every field of the context enters the key derivation.
//   - The key and commitment of each wrapping derive from a fresh 32-byte salt,
//     so that no budget of nonces runs out, and the commitment makes it
//     infeasible to open one text under two keys.
//   - A text that parses marshals again to the same bytes.
//
// It refuses to say why a well-formed text does not open: wrong key, wrong
// context and alteration are all [ErrOpen]. docs/formats/envelope.md is the
// specification.
package envelope

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"strconv"

	"keywright.dev/kms/secret"
)

// Sizes in bytes.
const (
	KeySize        = 32
	MaxPlaintext   = 16 << 10
	saltSize       = 32
	commitmentSize = 32
	// sealOverhead is the nonce in front and the tag behind a GCM ciphertext.
	sealOverhead = 28
)

// ErrMalformed means that a text is not in the kw1 format.
var ErrMalformed = errors.New("malformed wrapped secret")

// ErrOpen means that a well-formed text does not open: the keyring key or the
// context is another than it was wrapped under, or the text was altered.
var ErrOpen = errors.New("wrapped secret does not open: wrong key, wrong context, or altered")

// Seal wraps plaintext (1 to [MaxPlaintext] bytes) under the 32-byte key of
// the keyring version that c names. random yields the salt; the nonce always
// comes from the system.
func Seal(random io.Reader, key secret.Bytes, c Context, plaintext secret.Bytes) (string, error) {
	if plaintext.Len() == 0 || plaintext.Len() > MaxPlaintext {
		return "", fmt.Errorf("wrapping a secret for %s: its length is %d, outside 1 to %d bytes", c, plaintext.Len(), MaxPlaintext)
	}
	w := Wrapped{Keyring: c.Keyring, Version: c.Version}
	if _, err := io.ReadFull(random, w.salt[:]); err != nil {
		return "", fmt.Errorf("wrapping a secret for %s: reading random salt: %w", c, err)
	}
	keys, err := derive(key, w.salt, c)
	if err != nil {
		return "", fmt.Errorf("wrapping a secret for %s: %w", c, err)
	}
	defer keys.wipe()
	w.commitment = keys.commitment
	w.sealed = keys.aead.Seal(nil, nil, plaintext.Expose(), nil)
	return w.String(), nil
}

// Open unwraps text with the key of the keyring version that c names. The
// errors are [ErrMalformed] and [ErrOpen].
func Open(key secret.Bytes, c Context, text string) (secret.Bytes, error) {
	w, err := Parse(text)
	if err != nil {
		return secret.Bytes{}, err
	}
	if w.Keyring != c.Keyring || w.Version != c.Version {
		return secret.Bytes{}, ErrOpen
	}
	keys, err := derive(key, w.salt, c)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("unwrapping a secret of %s: %w", c, err)
	}
	defer keys.wipe()
	if subtle.ConstantTimeCompare(keys.commitment[:], w.commitment[:]) != 1 {
		return secret.Bytes{}, ErrOpen
	}
	plaintext, err := keys.aead.Open(nil, nil, w.sealed, nil)
	if err != nil {
		return secret.Bytes{}, ErrOpen
	}
	return secret.New(plaintext), nil
}

// keys is what one salt yields.
type keys struct {
	aead       cipher.AEAD
	commitment [commitmentSize]byte
	derived    secret.Bytes
}

func (k keys) wipe() { k.derived.Wipe() }

// derive is HKDF-SHA256 (RFC 5869) with the context as info.
func derive(key secret.Bytes, salt [saltSize]byte, c Context) (keys, error) {
	if key.Len() != KeySize {
		return keys{}, fmt.Errorf("the keyring key has %d bytes instead of %d", key.Len(), KeySize)
	}
	info, err := c.encode()
	if err != nil {
		return keys{}, err
	}
	okm, err := hkdf.Key(sha256.New, key.Expose(), salt[:], string(info), KeySize+commitmentSize)
	if err != nil {
		return keys{}, fmt.Errorf("deriving the wrapping key: %w", err)
	}
	derived := secret.New(okm)
	block, err := aes.NewCipher(okm[:KeySize])
	if err != nil {
		derived.Wipe()
		return keys{}, fmt.Errorf("preparing the wrapping key: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		derived.Wipe()
		return keys{}, fmt.Errorf("preparing the wrapping key: %w", err)
	}
	return keys{aead, [commitmentSize]byte(okm[KeySize:]), derived}, nil
}

// maxVersion keeps versions within a signed 32-bit column.
const maxVersion = 1<<31 - 1

func formatVersion(v uint32) string { return strconv.FormatUint(uint64(v), 10) }
