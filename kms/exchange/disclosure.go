package exchange

import (
	"crypto/hpke"
	"crypto/sha256"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"

	"keywright.dev/kms/secret"
)

const disclosureV1 = "keywright/disclosure/v1"

// ErrDisclosure means that a disclosed key does not open: it is of another volume
// or version, for another recipient, or was altered.
var ErrDisclosure = errors.New("the disclosed key does not open: it is of another volume or version, for another recipient, or was altered")

// DisclosureStatement is what the answer to an operator's request for a recovery key
// is bound to: the volume as he named it, the version of the key that he asked for, 0
// being the current one, and his recipient key.
func DisclosureStatement(volume string, version uint32, recipient []byte) ([]byte, error) {
	var b cryptobyte.Builder
	addText(&b, disclosureV1)
	addBytes16(&b, []byte(volume))
	b.AddUint32(version)
	addBytes16(&b, recipient)
	out, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encoding a disclosure: %w", err)
	}
	return out, nil
}

// SealDisclosure seals a key for the recipient key that statement holds and returns
// the response that the service signs.
func SealDisclosure(recipient RecipientKey, statement []byte, key secret.Bytes) ([]byte, error) {
	sealed, err := hpke.Seal(recipient.public, hpke.HKDFSHA256(), hpke.AES256GCM(), disclosureInfo(statement), key.Expose())
	if err != nil {
		return nil, fmt.Errorf("sealing a disclosed key: %w", err)
	}
	return sealed, nil
}

// OpenDisclosure opens the response to statement. Its error is [ErrDisclosure]. The
// caller wipes the key.
func (r *Recipient) OpenDisclosure(statement, response []byte) (secret.Bytes, error) {
	plaintext, err := hpke.Open(r.private, hpke.HKDFSHA256(), hpke.AES256GCM(), disclosureInfo(statement), response)
	if err != nil {
		return secret.Bytes{}, ErrDisclosure
	}
	return secret.New(plaintext), nil
}

// disclosureInfo is HPKE's info: "keywright/disclosure/v1" ‖ SHA-256(statement).
func disclosureInfo(statement []byte) []byte {
	hash := sha256.Sum256(statement)
	return append([]byte(disclosureV1), hash[:]...)
}
