package exchange

import (
	"crypto/hpke"
	"crypto/sha256"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"

	"keywright.dev/kms/secret"
)

const responseV1 = "keywright/response/v1"

// maxSealed bounds the HPKE output: the encapsulated key (1,120 bytes), the
// padded message and the tag.
const maxSealed = maxPadded + 2<<10

// ErrOpen means that a sealed release does not open: it answers another
// statement, is for another recipient, or was altered.
var ErrOpen = errors.New("sealed release does not open: it answers another statement, is for another recipient, or was altered")

// kem is X-Wing's construction, MLKEM768X25519
// (draft-ietf-hpke-pq), which holds while either part does.
func kem() hpke.KEM { return hpke.MLKEM768X25519() }

// Recipient is a guest's ephemeral HPKE key pair: made for one statement, in
// memory only.
type Recipient struct {
	private hpke.PrivateKey
}

// NewRecipient makes a key pair.
func NewRecipient() (*Recipient, error) {
	private, err := kem().GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("making an HPKE key pair: %w", err)
	}
	return &Recipient{private}, nil
}

// PublicKey returns what [Statement].Recipient takes.
func (r *Recipient) PublicKey() []byte { return r.private.PublicKey().Bytes() }

// RecipientKey is the public half of a [Recipient]. Parsing it expands a matrix,
// which costs as much as a signature: keep it.
type RecipientKey struct {
	public hpke.PublicKey
}

// ParseRecipientKey parses [Statement].Recipient; its error is [ErrMalformed].
func ParseRecipientKey(public []byte) (RecipientKey, error) {
	key, err := kem().NewPublicKey(public)
	if err != nil {
		return RecipientKey{}, fmt.Errorf("%w recipient key: %w", ErrMalformed, err)
	}
	return RecipientKey{key}, nil
}

// SealRelease seals r for the recipient key that statement holds and returns
// the response that the service signs.
func SealRelease(recipient RecipientKey, statement []byte, r *Release) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	message, err := r.marshal()
	if err != nil {
		return nil, err
	}
	defer message.Wipe()
	sealed, err := hpke.Seal(recipient.public, hpke.HKDFSHA256(), hpke.AES256GCM(), sealInfo(statement, r.ID), message.Expose())
	if err != nil {
		return nil, fmt.Errorf("sealing a release: %w", err)
	}
	return marshalResponse(r.ID, sealed)
}

// OpenRelease opens a response to statement. Its errors are [ErrMalformed] and
// [ErrOpen]. The caller has verified the service's signature before.
func (r *Recipient) OpenRelease(statement, response []byte) (*Release, error) {
	id, sealed, err := parseResponse(response)
	if err != nil {
		return nil, err
	}
	plaintext, err := hpke.Open(r.private, hpke.HKDFSHA256(), hpke.AES256GCM(), sealInfo(statement, id), sealed)
	if err != nil {
		return nil, ErrOpen
	}
	message := secret.New(plaintext)
	defer message.Wipe()
	release, err := parseRelease(message)
	if err != nil {
		return nil, err
	}
	if release.ID != id {
		release.Wipe()
		return nil, fmt.Errorf("%w release: its id is not the response's", ErrMalformed)
	}
	return release, nil
}

// sealInfo is HPKE's info: "keywright/release/v1" ‖ SHA-256(statement) ‖ id.
func sealInfo(statement []byte, id [32]byte) []byte {
	hash := sha256.Sum256(statement)
	return append(append([]byte(releaseV1), hash[:]...), id[:]...)
}

func marshalResponse(id [32]byte, sealed []byte) ([]byte, error) {
	var b cryptobyte.Builder
	addText(&b, responseV1)
	b.AddBytes(id[:])
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(sealed) })
	out, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encoding a response: %w", err)
	}
	return out, nil
}

func parseResponse(response []byte) (id [32]byte, sealed []byte, err error) {
	var label string
	var body cryptobyte.String
	in := cryptobyte.String(response)
	if !readText(&in, &label) || label != responseV1 || !in.CopyBytes(id[:]) ||
		!in.ReadUint24LengthPrefixed(&body) || !in.Empty() || len(body) > maxSealed {
		return id, nil, fmt.Errorf("%w response", ErrMalformed)
	}
	return id, body, nil
}
