package exchange

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"

	"keywright.dev/kms/secret"
)

const (
	headerCopyV1 = "keywright/header-copy/v1"
	// HeaderKeySize is the length of the key that the copy of a header is sealed
	// under, in bytes.
	HeaderKeySize = 32
	// MaxHeaderCopy bounds a sealed copy, in bytes: of a header with all of its 32
	// keyslots in use.
	MaxHeaderCopy = 33 << 18
	// gcmOverhead is what sealing adds: nonce and tag.
	gcmOverhead = 12 + 16
)

// ErrHeaderCopy means that the copy of a header does not open: it is of another
// volume or rekey, or was altered.
var ErrHeaderCopy = errors.New("the copy of the header does not open: it is of another volume or rekey, or was altered")

// SealHeaderCopy seals the copy of a volume's header from before the rekey that makes
// a version of its secret, with AES-256-GCM under a random nonce, which stands before
// the ciphertext. A key seals a few copies at most.
func SealHeaderCopy(key secret.Bytes, volume string, version uint32, header []byte) ([]byte, error) {
	if len(header)+gcmOverhead > MaxHeaderCopy {
		return nil, fmt.Errorf("sealing the copy of a header: it has %d bytes, at most %d can be kept: remove keyslots that nobody needs", len(header), MaxHeaderCopy-gcmOverhead)
	}
	aead, bound, err := headerCopyOf(key, volume, version)
	if err != nil {
		return nil, fmt.Errorf("sealing the copy of a header: %w", err)
	}
	return aead.Seal(nil, nil, header, bound), nil
}

// OpenHeaderCopy opens what [SealHeaderCopy] sealed. Its error is [ErrHeaderCopy].
func OpenHeaderCopy(key secret.Bytes, volume string, version uint32, sealed []byte) ([]byte, error) {
	if len(sealed) > MaxHeaderCopy {
		return nil, ErrHeaderCopy
	}
	aead, bound, err := headerCopyOf(key, volume, version)
	if err != nil {
		return nil, fmt.Errorf("opening the copy of a header: %w", err)
	}
	header, err := aead.Open(nil, nil, sealed, bound)
	if err != nil {
		return nil, ErrHeaderCopy
	}
	return header, nil
}

// headerCopyOf returns the cipher of a copy, and what binds it:
// "keywright/header-copy/v1" ‖ volume ‖ version.
func headerCopyOf(key secret.Bytes, volume string, version uint32) (cipher.AEAD, []byte, error) {
	if key.Len() != HeaderKeySize {
		return nil, nil, fmt.Errorf("its key has %d bytes, want %d", key.Len(), HeaderKeySize)
	}
	var b cryptobyte.Builder
	addText(&b, headerCopyV1)
	addBytes16(&b, []byte(volume))
	b.AddUint32(version)
	bound, err := b.Bytes()
	if err != nil {
		return nil, nil, err
	}
	block, err := aes.NewCipher(key.Expose())
	if err != nil {
		return nil, nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return aead, bound, err
}
