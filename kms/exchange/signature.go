package exchange

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"keywright.dev/kms/secret"
)

const (
	signatureLabel = "keywright/service-signature/v1"
	proofLabel     = "keywright/enroll-proof/v1"
)

// ErrServiceKey means that a response was signed by a key that is not pinned.
var ErrServiceKey = errors.New("the response is signed by a service key that is not pinned here")

// ErrSignature means that the service's signature does not cover this
// statement and this response.
var ErrSignature = errors.New("the service's signature does not verify over this statement and response")

// Fingerprint is SHA-256 over a SubjectPublicKeyInfo in DER.
func Fingerprint(spki []byte) [32]byte { return sha256.Sum256(spki) }

// SignResponse signs statement and response with the service identity key
// (ECDSA P-256; the signature is ASN.1 DER). The statement is what the guest
// sent, byte for byte.
func SignResponse(key crypto.Signer, statement, response []byte) ([]byte, error) {
	hash := responseHash(statement, response)
	signature, err := key.Sign(rand.Reader, hash[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("signing a response with the service identity key: %w", err)
	}
	return signature, nil
}

// VerifyResponse checks that the key in spki is one of the pinned fingerprints
// and that it signed statement and response. Its errors are [ErrServiceKey] and
// [ErrSignature].
func VerifyResponse(pins [][32]byte, spki, statement, response, signature []byte) error {
	return verifyService(pins, spki, responseHash(statement, response), signature)
}

func verifyService(pins [][32]byte, spki []byte, hash [32]byte, signature []byte) error {
	if !slices.Contains(pins, Fingerprint(spki)) {
		return ErrServiceKey
	}
	public, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return ErrServiceKey
	}
	key, ok := public.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return ErrServiceKey
	}
	if !ecdsa.VerifyASN1(key, hash[:], signature) {
		return ErrSignature
	}
	return nil
}

// responseHash hashes the statement by itself first: two variable lengths
// cannot follow each other unambiguously.
func responseHash(statement, response []byte) [32]byte {
	hash := sha256.Sum256(statement)
	return digest(signatureLabel, hash[:], response)
}

// EnrollProof shows that the guest could activate the credential: an
// HMAC-SHA256 under the credential's secret over the statement.
func EnrollProof(credential secret.Bytes, statement []byte) [32]byte {
	mac := hmac.New(sha256.New, credential.Expose())
	mac.Write([]byte(proofLabel))
	mac.Write([]byte{0})
	mac.Write(statement)
	return [32]byte(mac.Sum(nil))
}
