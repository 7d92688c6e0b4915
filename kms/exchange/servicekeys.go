package exchange

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
)

const serviceKeysLabel = "keywright/service-keys/v1"

// MaxServiceKeys bounds the service identity keys that a guest pins.
const MaxServiceKeys = 4

// SignServiceKeys signs, with a service identity key, which ones guests are to pin:
// the answer to who asked with a nonce.
func SignServiceKeys(key crypto.Signer, nonce [32]byte, keys [][32]byte) ([]byte, error) {
	hash := serviceKeysHash(nonce, keys)
	signature, err := key.Sign(rand.Reader, hash[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("signing what guests are to pin: %w", err)
	}
	return signature, nil
}

// VerifyServiceKeys checks what [SignServiceKeys] signed against the one pin that
// was named. The list holds that key as well: who takes over another never pins
// fewer keys of this service than answer it now. Its errors are [ErrServiceKey] and
// [ErrSignature], or say what is wrong with the list.
func VerifyServiceKeys(pin [32]byte, spki []byte, nonce [32]byte, keys [][32]byte, signature []byte) error {
	if err := verifyService([][32]byte{pin}, spki, serviceKeysHash(nonce, keys), signature); err != nil {
		return err
	}
	switch {
	case len(keys) > MaxServiceKeys:
		return fmt.Errorf("the service names %d keys to pin, at most %d are taken", len(keys), MaxServiceKeys)
	case !slices.Contains(keys, pin):
		return errors.New("the keys that the service names to pin lack the one that it answered with")
	}
	return nil
}

func serviceKeysHash(nonce [32]byte, keys [][32]byte) [32]byte {
	var list []byte
	for _, k := range keys {
		list = append(list, k[:]...)
	}
	return digest(serviceKeysLabel, nonce[:], list)
}

// Fingerprints reads a list of fingerprints of 32 bytes each, at most
// [MaxServiceKeys].
func Fingerprints(list [][]byte) ([][32]byte, error) {
	if len(list) > MaxServiceKeys {
		return nil, fmt.Errorf("%w list of service keys: it has %d, at most %d are taken", ErrMalformed, len(list), MaxServiceKeys)
	}
	var keys [][32]byte
	for _, b := range list {
		if len(b) != sha256.Size {
			return nil, fmt.Errorf("%w list of service keys: a fingerprint has %d bytes", ErrMalformed, len(b))
		}
		keys = append(keys, [32]byte(b))
	}
	return keys, nil
}
