package attest

import (
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"slices"
	"time"

	"keywright.dev/kms/exchange"
)

// EKBasis tells what trust in an endorsement key rests on.
type EKBasis string

const (
	// ByInventory means that the operator listed the key's hash.
	ByInventory EKBasis = "inventory"
	// ByCertificate means that a pinned CA certified the key.
	ByCertificate EKBasis = "certificate"
	// ByPerson means that nothing vouches for the key: a person has to compare
	// its hash with the hypervisor's.
	ByPerson EKBasis = "person"
)

// EKTrust is what an operator lets vouch for endorsement keys. The zero value
// trusts nothing: every key is for a person to approve.
type EKTrust struct {
	// Roots are the CAs pinned. Each is a trust anchor, also one that another
	// CA certified: whoever pins an intermediate CA trusts that one.
	Roots []*x509.Certificate
	// Inventory lists hashes of keys, as [exchange.EK.MachineID] writes them.
	Inventory []string
}

// EKDecision is the outcome for a key that is not refused.
type EKDecision struct {
	Basis EKBasis
	// Reason tells why it takes a person; empty otherwise.
	Reason string
}

// Check judges an endorsement key and the certificate that came with it (DER,
// TCG EK Credential Profile; empty if the TPM has none) at a point in time. A
// certificate that is malformed or of another key is refused with an [*Error];
// one that no pinned CA vouches for leaves the decision to a person.
func (t EKTrust) Check(ek exchange.EK, certificate []byte, now time.Time) (EKDecision, error) {
	switch {
	case slices.Contains(t.Inventory, ek.MachineID()):
		return EKDecision{Basis: ByInventory}, nil
	case len(t.Roots) == 0:
		return EKDecision{ByPerson, "no EK CA is pinned and the inventory does not list the key"}, nil
	case len(certificate) == 0:
		return EKDecision{ByPerson, "the TPM has no EK certificate and the inventory does not list the key"}, nil
	}
	leaf, err := parseEKCertificate(ek, certificate)
	if err != nil {
		return EKDecision{}, err
	}
	if reason := t.doubt(leaf, now); reason != "" {
		return EKDecision{ByPerson, reason}, nil
	}
	return EKDecision{Basis: ByCertificate}, nil
}

func parseEKCertificate(ek exchange.EK, der []byte) (*x509.Certificate, error) {
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, refuse(EKCertificateMalformed, "the EK certificate of %d bytes is not one X.509 certificate", len(der))
	}
	key, ok := ek.Key.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !key.Equal(leaf.PublicKey) {
		return nil, refuse(EKCertificateKey, "the EK certificate is of another key than the endorsement key")
	}
	return leaf, nil
}

// doubt returns why a certificate does not speak for its key, or "".
func (t EKTrust) doubt(leaf *x509.Certificate, now time.Time) string {
	ekUsage := asn1.ObjectIdentifier{2, 23, 133, 8, 1} // tcg-kp-EKCertificate
	if leaf.IsCA || !slices.ContainsFunc(leaf.UnknownExtKeyUsage, ekUsage.Equal) {
		return "the EK certificate is not meant for an endorsement key (extended key usage 2.23.133.8.1)"
	}
	// The profile demands a critical subject alternative name with the TPM's
	// manufacturer and model, a form that crypto/x509 does not handle.
	checked := *leaf
	checked.UnhandledCriticalExtensions = slices.DeleteFunc(slices.Clone(leaf.UnhandledCriticalExtensions),
		asn1.ObjectIdentifier{2, 5, 29, 17}.Equal)
	roots := x509.NewCertPool()
	for _, root := range t.Roots {
		roots.AddCert(root)
	}
	_, err := checked.Verify(x509.VerifyOptions{
		Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	return doubtOf(err)
}

func doubtOf(err error) string {
	var invalid x509.CertificateInvalidError
	switch {
	case err == nil:
		return ""
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return "no pinned CA signed the EK certificate: pin the CA that issued it"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the EK certificate or its CA's has expired or is not valid yet"
	case errors.As(err, new(x509.UnhandledCriticalExtension)):
		return "the EK certificate has a critical extension that is not understood"
	default:
		return "the EK certificate does not verify with the pinned CA"
	}
}
