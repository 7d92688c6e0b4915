package exchange

import (
	"bytes"
	"crypto"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"

	"keywright.dev/kms/secret"
)

// KeyDetails is the JSON in a statement with [PurposeKey].
type KeyDetails struct {
	Operation KeyOperation `json:"operation"`
	// Keyring is the one to wrap with, or that wrapped.
	Keyring string `json:"keyring"`
	// Request is the SHA-256 of the sealed request beside the statement.
	Request []byte `json:"request"`
}

// ErrKeyOpen means that a sealed message of the key API does not open: it
// belongs to another call, is for another recipient, or was altered.
var ErrKeyOpen = errors.New("a sealed message of the key API does not open: it belongs to another call, is for another recipient, or was altered")

// sealedOverhead is the encapsulated key and the tag of an HPKE message.
const sealedOverhead = 1120 + 16

// MaxSealedKeyMessage bounds a sealed message of either direction, in bytes.
const MaxSealedKeyMessage = MaxKeyMessage + sealedOverhead

// DeriveRecipient derives the service's key pair for one challenge (RFC 9180,
// section 7.1.3) from at least 32 secret bytes.
func DeriveRecipient(ikm secret.Bytes) (*Recipient, error) {
	private, err := kem().DeriveKeyPair(ikm.Expose())
	if err != nil {
		return nil, fmt.Errorf("deriving an HPKE key pair: %w", err)
	}
	return &Recipient{private}, nil
}

const keyRecipientLabel = "keywright/key-recipient/v1"

// SignKeyRecipient signs, with the service identity key, the public key that
// requests under a challenge are sealed to.
func SignKeyRecipient(key crypto.Signer, challenge [32]byte, recipient []byte) ([]byte, error) {
	hash := digest(keyRecipientLabel, challenge[:], recipient)
	signature, err := key.Sign(rand.Reader, hash[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("signing a recipient with the service identity key: %w", err)
	}
	return signature, nil
}

// VerifyKeyRecipient checks what [SignKeyRecipient] signed against the pinned
// fingerprints. Its errors are [ErrServiceKey] and [ErrSignature].
func VerifyKeyRecipient(pins [][32]byte, spki []byte, challenge [32]byte, recipient, signature []byte) error {
	return verifyService(pins, spki, digest(keyRecipientLabel, challenge[:], recipient), signature)
}

// KeyCall is a call of the key API in the making: a statement without evidence,
// whose details are of the sealed request.
type KeyCall struct {
	Statement Statement
	// Sealed goes beside the statement.
	Sealed    []byte
	recipient *Recipient
}

// NewKeyCall seals a request for the service's recipient key of a challenge. The
// caller has verified that key, and fills in who asks.
func NewKeyCall(challenge [32]byte, service []byte, operation KeyOperation, keyring string, r *KeyRequest) (*KeyCall, error) {
	if len(operation) > maxText || len(keyring) > maxText {
		return nil, fmt.Errorf("encoding a key request: operation or keyring has more than %d bytes", maxText)
	}
	to, err := ParseRecipientKey(service)
	if err != nil {
		return nil, err
	}
	own, err := NewRecipient()
	if err != nil {
		return nil, err
	}
	message, err := r.marshal()
	if err != nil {
		return nil, err
	}
	defer message.Wipe()
	info := keyRequestInfo(challenge, own.PublicKey(), operation, keyring)
	sealed, err := hpke.Seal(to.public, hpke.HKDFSHA256(), hpke.AES256GCM(), info, message.Expose())
	if err != nil {
		return nil, fmt.Errorf("sealing a key request: %w", err)
	}
	hash := sha256.Sum256(sealed)
	details, err := MarshalDetails(KeyDetails{Operation: operation, Keyring: keyring, Request: hash[:]})
	if err != nil {
		return nil, err
	}
	return &KeyCall{recipient: own, Sealed: sealed, Statement: Statement{
		Purpose: PurposeKey, Challenge: challenge, Recipient: own.PublicKey(), Selection: SelectionBitmap(), Details: details,
	}}, nil
}

// keyRequestInfo binds a request to its call. All but the last part have a fixed
// length or carry it.
func keyRequestInfo(challenge [32]byte, recipient []byte, operation KeyOperation, keyring string) []byte {
	var b cryptobyte.Builder
	addText(&b, string(operation))
	addText(&b, keyring)
	names := b.BytesOrPanic() // both were bounded
	hash := digest(keyRequestV1, challenge[:], names, recipient)
	return append([]byte(keyRequestV1), hash[:]...)
}

// OpenKeyRequest opens the request that a parsed statement announces. Its errors
// are [ErrMalformed] and [ErrKeyOpen].
func (r *Recipient) OpenKeyRequest(statement *Statement, details KeyDetails, sealed []byte) (*KeyRequest, error) {
	hash := sha256.Sum256(sealed)
	if !bytes.Equal(details.Request, hash[:]) || len(sealed) > MaxSealedKeyMessage ||
		len(details.Operation) > maxText || len(details.Keyring) > maxText {
		return nil, fmt.Errorf("%w key request: it is not the one of the statement", ErrMalformed)
	}
	info := keyRequestInfo(statement.Challenge, statement.Recipient, details.Operation, details.Keyring)
	plaintext, err := hpke.Open(r.private, hpke.HKDFSHA256(), hpke.AES256GCM(), info, sealed)
	if err != nil {
		return nil, ErrKeyOpen
	}
	message := secret.New(plaintext)
	defer message.Wipe()
	return parseKeyRequest(message)
}

// SealKeyAnswer seals an answer for the recipient key that statement holds and
// returns the response that the service signs.
func SealKeyAnswer(recipient RecipientKey, statement []byte, a *KeyAnswer) ([]byte, error) {
	message, err := a.marshal()
	if err != nil {
		return nil, err
	}
	defer message.Wipe()
	sealed, err := hpke.Seal(recipient.public, hpke.HKDFSHA256(), hpke.AES256GCM(), keyAnswerInfo(statement), message.Expose())
	if err != nil {
		return nil, fmt.Errorf("sealing a key answer: %w", err)
	}
	return sealed, nil
}

// Open opens the answer to statement, which is the call's as it was sent, and
// holds it against what was asked: a result for each item, in their order. The
// caller has verified the service's signature before. Its errors are
// [ErrMalformed] and [ErrKeyOpen].
func (c *KeyCall) Open(statement, response []byte, r *KeyRequest) (*KeyAnswer, error) {
	plaintext, err := hpke.Open(c.recipient.private, hpke.HKDFSHA256(), hpke.AES256GCM(), keyAnswerInfo(statement), response)
	if err != nil {
		return nil, ErrKeyOpen
	}
	message := secret.New(plaintext)
	defer message.Wipe()
	answer, err := parseKeyAnswer(message)
	if err != nil {
		return nil, err
	}
	fits := len(answer.Results) == len(r.Items)
	for i := 0; fits && i < len(r.Items); i++ {
		fits = answer.Results[i].Reference == r.Items[i].Reference
	}
	if !fits {
		answer.Wipe()
		return nil, fmt.Errorf("%w key answer: its results are not those of the items", ErrMalformed)
	}
	return answer, nil
}

// keyAnswerInfo is HPKE's info: "keywright/key-answer/v1" ‖ SHA-256(statement).
func keyAnswerInfo(statement []byte) []byte {
	hash := sha256.Sum256(statement)
	return append([]byte(keyAnswerV1), hash[:]...)
}
