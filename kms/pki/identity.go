package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"

	"keywright.dev/kms/secret"
)

// Fingerprint is the SHA-256 of a SubjectPublicKeyInfo in DER.
type Fingerprint [sha256.Size]byte

// String returns "sha256:" and 64 lower-case hex digits.
func (f Fingerprint) String() string { return "sha256:" + hex.EncodeToString(f[:]) }

// Identity is the service identity key: one per installation, pinned by every
// guest. It is a [crypto.Signer] and safe for concurrent use.
type Identity struct {
	key  *ecdsa.PrivateKey
	spki []byte
}

// NewIdentity generates an identity.
func NewIdentity() (*Identity, error) {
	key, err := generateKey()
	if err != nil {
		return nil, fmt.Errorf("making the service identity: %w", err)
	}
	return identityOf(key)
}

// MakeIdentity generates an identity in the form that it is stored in: its
// fingerprint, its public key, and what [OpenIdentity] parses, which the caller
// wipes.
func MakeIdentity() (id string, public []byte, private secret.Bytes, err error) {
	i, err := NewIdentity()
	if err != nil {
		return "", nil, secret.Bytes{}, err
	}
	private, err = i.Marshal()
	return i.Fingerprint().String(), i.SPKI(), private, err
}

// OpenIdentity parses what [Identity.Marshal] returned; the caller wipes it.
func OpenIdentity(pkcs8 secret.Bytes) (*Identity, error) {
	key, err := parseKey(pkcs8)
	if err != nil {
		return nil, fmt.Errorf("opening the service identity: %w", err)
	}
	return identityOf(key)
}

func identityOf(key *ecdsa.PrivateKey) (*Identity, error) {
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("encoding the service identity's public key: %w", err)
	}
	return &Identity{key, spki}, nil
}

// Marshal returns the private key as PKCS#8 in DER.
func (i *Identity) Marshal() (secret.Bytes, error) { return marshalKey(i.key) }

// SPKI returns the public key as SubjectPublicKeyInfo in DER (RFC 5280 section
// 4.1), which the caller must not change.
func (i *Identity) SPKI() []byte { return i.spki }

// Fingerprint returns what guests pin.
func (i *Identity) Fingerprint() Fingerprint { return sha256.Sum256(i.spki) }

// Public implements [crypto.Signer].
func (i *Identity) Public() crypto.PublicKey { return i.key.Public() }

// Sign implements [crypto.Signer]: ECDSA in ASN.1 DER over a digest.
func (i *Identity) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return i.key.Sign(random, digest, opts)
}
