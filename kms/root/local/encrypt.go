package local

import (
	"crypto/aes"
	"crypto/cipher"

	"keywright.dev/kms/root"
	"keywright.dev/kms/secret"
)

// formatV1 is the first byte of what [Encrypt] returns.
const formatV1 = 1

// Encrypt returns a version byte, the nonce, the ciphertext and the tag of
// AES-256-GCM under key, with context as additional data.
func Encrypt(key, data secret.Bytes, context []byte) ([]byte, error) {
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	return aead.Seal([]byte{formatV1}, nil, data.Expose(), context), nil
}

// Decrypt is the inverse of [Encrypt]. It fails with [root.ErrDoesNotOpen].
func Decrypt(key secret.Bytes, ciphertext, context []byte) (secret.Bytes, error) {
	if len(ciphertext) == 0 || ciphertext[0] != formatV1 {
		return secret.Bytes{}, root.ErrDoesNotOpen
	}
	aead, err := newAEAD(key)
	if err != nil {
		return secret.Bytes{}, err
	}
	data, err := aead.Open(nil, nil, ciphertext[1:], context)
	if err != nil {
		return secret.Bytes{}, root.ErrDoesNotOpen
	}
	return secret.New(data), nil
}

func newAEAD(key secret.Bytes) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key.Expose())
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
