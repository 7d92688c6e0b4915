package pkcs11

import (
	"fmt"

	"keywright.dev/kms/root"
)

// What Wrap returns: a format byte, the IV, and what CKM_AES_GCM made of the key,
// the tag at its end.
const (
	formatV1 = 1
	ivSize   = 12
	tagSize  = 16

	sealedSize  = root.KeySize + tagSize
	wrappedSize = 1 + ivSize + sealedSize
)

// split returns IV and sealed key of a ciphertext, before a token is asked.
func split(ciphertext []byte) (iv, sealed []byte, err error) {
	if len(ciphertext) != wrappedSize {
		return nil, nil, fmt.Errorf("%w: it has %d bytes and not %d", root.ErrDoesNotOpen, len(ciphertext), wrappedSize)
	}
	if ciphertext[0] != formatV1 {
		return nil, nil, fmt.Errorf("%w: its format is %d and not %d", root.ErrDoesNotOpen, ciphertext[0], formatV1)
	}
	return ciphertext[1 : 1+ivSize], ciphertext[1+ivSize:], nil
}

func join(iv, sealed []byte) []byte {
	out := append(make([]byte, 0, wrappedSize), formatV1)
	return append(append(out, iv...), sealed...)
}
