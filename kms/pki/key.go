package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"

	"keywright.dev/kms/secret"
)

func generateKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generating an ECDSA P-256 key: %w", err)
	}
	return key, nil
}

// marshalKey returns the key as PKCS#8 (RFC 5208) in DER.
func marshalKey(key *ecdsa.PrivateKey) (secret.Bytes, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("encoding a private key: %w", err)
	}
	return secret.New(der), nil
}

// parseKey parses what marshalKey returned. Its errors do not carry their
// cause: a parser's message may quote what it parsed.
func parseKey(der secret.Bytes) (*ecdsa.PrivateKey, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(der.Expose())
	if err != nil {
		return nil, errors.New("not a private key in PKCS#8")
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("not an ECDSA P-256 key")
	}
	return key, nil
}
