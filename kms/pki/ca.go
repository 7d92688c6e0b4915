package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"keywright.dev/kms/secret"
)

const (
	// ServerLifetime is how long a server certificate is valid.
	ServerLifetime = 30 * 24 * time.Hour
	// authorityYears is how long the authority's own certificate is valid.
	authorityYears = 10
	// backdate lets clients whose clock is behind accept a new certificate.
	backdate = time.Hour
)

// CA is the installation's certificate authority. It is safe for concurrent use.
type CA struct {
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
}

// NewCA generates an authority with a self-signed certificate, valid for ten
// years from now, that may sign leaf certificates only.
func NewCA(now time.Time) (*CA, error) {
	key, err := generateKey()
	if err != nil {
		return nil, fmt.Errorf("making the certificate authority: %w", err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("making the certificate authority: %w", err)
	}
	id := sha256.Sum256(spki)
	template := &x509.Certificate{
		// The name tells two installations' authorities apart.
		Subject:               pkix.Name{CommonName: "Keywright CA " + hex.EncodeToString(id[:4])},
		SubjectKeyId:          id[:20],
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.AddDate(authorityYears, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("making the certificate authority: %w", err)
	}
	return openCA(der, key)
}

// OpenCA opens an authority from its certificate in DER and the key that
// [CA.Marshal] returned, which the caller wipes.
func OpenCA(certificate []byte, pkcs8 secret.Bytes) (*CA, error) {
	key, err := parseKey(pkcs8)
	if err != nil {
		return nil, fmt.Errorf("opening the certificate authority: %w", err)
	}
	return openCA(certificate, key)
}

func openCA(der []byte, key *ecdsa.PrivateKey) (*CA, error) {
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, errors.New("opening the certificate authority: its certificate does not parse")
	}
	public, ok := certificate.PublicKey.(*ecdsa.PublicKey)
	switch {
	case !ok || public.Curve != elliptic.P256() || !public.Equal(key.Public()):
		return nil, errors.New("opening the certificate authority: its certificate is of another key")
	case !certificate.IsCA:
		return nil, errors.New("opening the certificate authority: its certificate is not an authority's")
	}
	return &CA{key, certificate}, nil
}

// Marshal returns the private key as PKCS#8 in DER.
func (c *CA) Marshal() (secret.Bytes, error) { return marshalKey(c.key) }

// Certificate returns the authority's certificate in DER, which the caller must
// not change.
func (c *CA) Certificate() []byte { return c.certificate.Raw }

// PEM returns the authority's certificate as clients are given it.
func (c *CA) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.certificate.Raw})
}

// Issue makes a server certificate for names with a key of its own, valid for
// [ServerLifetime]. It does so after the authority's own end as well: guests
// look at no date, and their boots must go on.
func (c *CA) Issue(names Names, now time.Time) (*tls.Certificate, error) {
	if err := names.check(); err != nil {
		return nil, fmt.Errorf("issuing a server certificate: %w", err)
	}
	key, err := generateKey()
	if err != nil {
		return nil, fmt.Errorf("issuing a server certificate: %w", err)
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "Keywright"},
		DNSNames:              names.DNS,
		IPAddresses:           names.netIPs(),
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(ServerLifetime),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.certificate, key.Public(), c.key)
	if err != nil {
		return nil, fmt.Errorf("issuing a server certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("issuing a server certificate: %w", err)
	}
	return &tls.Certificate{
		Certificate: [][]byte{der, c.certificate.Raw}, PrivateKey: key, Leaf: leaf,
	}, nil
}
