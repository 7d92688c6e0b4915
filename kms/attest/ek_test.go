package attest_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/attest"
	"keywright.dev/kms/exchange"
)

// ekCA certifies endorsement keys as a TPM manufacturer does.
type ekCA struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func ekTime() time.Time { return time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC) }

func p256Key(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

func newEKCA(t testing.TB, parent *ekCA) *ekCA {
	t.Helper()
	ca := &ekCA{key: p256Key(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "an EK CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: ekTime().AddDate(-1, 0, 0), NotAfter: ekTime().AddDate(9, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	signer := ca
	if parent == nil {
		parent = &ekCA{ca.key, template}
	} else {
		template.Subject.CommonName = "an intermediate EK CA"
		signer = parent
	}
	ca.cert = certify(t, template, parent.cert, ca.key.Public(), signer.key)
	return ca
}

func certify(t testing.TB, template, parent *x509.Certificate, key crypto.PublicKey, signer crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, signer)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return cert
}

// leaf is an EK certificate as the profile demands it: a critical subject
// alternative name with a directory name, and the extended key usage.
func leaf() *x509.Certificate {
	manufacturer := asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: []byte{0x30, 0x00}}
	san, err := asn1.Marshal([]asn1.RawValue{manufacturer})
	if err != nil {
		panic(err)
	}
	return &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: ekTime().AddDate(0, -1, 0), NotAfter: ekTime().AddDate(0, 1, 0),
		ExtraExtensions:    []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: san}},
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{{2, 23, 133, 8, 1}},
		KeyUsage:           x509.KeyUsageKeyEncipherment,
	}
}

func (ca *ekCA) certify(t testing.TB, template *x509.Certificate, ek exchange.EK) []byte {
	t.Helper()
	return certify(t, template, ca.cert, ek.Key, ca.key).Raw
}

func rsaEK(t testing.TB) exchange.EK {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	return exchange.EK{Template: exchange.EKRSA2048, Public: []byte("a public area"), Key: key.Public()}
}

func TestEKTrust(t *testing.T) {
	root := newEKCA(t, nil)
	intermediate := newEKCA(t, root)
	ek := rsaEK(t)
	eccEK := exchange.EK{Template: exchange.EKP256, Public: []byte("another"), Key: p256Key(t).Public()}
	change := func(edit func(*x509.Certificate)) []byte {
		template := leaf()
		edit(template)
		return root.certify(t, template, ek)
	}
	pinned := attest.EKTrust{Roots: []*x509.Certificate{root.cert}}
	listed := attest.EKTrust{Inventory: []string{ek.MachineID()}}
	for name, c := range map[string]struct {
		trust attest.EKTrust
		ek    exchange.EK
		cert  []byte
		want  attest.EKBasis
		why   string
	}{
		"certified by a pinned CA":         {pinned, ek, root.certify(t, leaf(), ek), attest.ByCertificate, ""},
		"ECC key certified":                {pinned, eccEK, root.certify(t, leaf(), eccEK), attest.ByCertificate, ""},
		"certified by a pinned lesser CA":  {attest.EKTrust{Roots: []*x509.Certificate{root.cert, intermediate.cert}}, ek, intermediate.certify(t, leaf(), ek), attest.ByCertificate, ""},
		"listed":                           {listed, ek, nil, attest.ByInventory, ""},
		"listed with a broken certificate": {listed, ek, []byte("x"), attest.ByInventory, ""},
		"nothing configured":               {attest.EKTrust{}, ek, root.certify(t, leaf(), ek), attest.ByPerson, "no EK CA is pinned"},
		"another key listed":               {listed, eccEK, nil, attest.ByPerson, "inventory"},
		"no certificate":                   {pinned, ek, nil, attest.ByPerson, "no EK certificate"},
		"another CA":                       {pinned, ek, newEKCA(t, nil).certify(t, leaf(), ek), attest.ByPerson, "no pinned CA"},
		"lesser CA that is not pinned":     {pinned, ek, intermediate.certify(t, leaf(), ek), attest.ByPerson, "no pinned CA"},
		"expired":                          {pinned, ek, change(func(c *x509.Certificate) { c.NotAfter = ekTime().AddDate(0, 0, -1) }), attest.ByPerson, "expired"},
		"not valid yet":                    {pinned, ek, change(func(c *x509.Certificate) { c.NotBefore = ekTime().AddDate(0, 0, 1) }), attest.ByPerson, "not valid yet"},
		"no EK usage":                      {pinned, ek, change(func(c *x509.Certificate) { c.UnknownExtKeyUsage = nil }), attest.ByPerson, "2.23.133.8.1"},
		"a CA's own certificate": {pinned, ek, change(func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }), attest.ByPerson,
			"not meant for an endorsement key"},
		"unknown critical extension": {pinned, ek, change(func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}})
		}), attest.ByPerson, "critical extension"},
	} {
		t.Run(name, func(t *testing.T) {
			decision, err := c.trust.Check(c.ek, c.cert, ekTime())
			require.NoError(t, err)
			assert.Equal(t, c.want, decision.Basis)
			if c.why == "" {
				assert.Empty(t, decision.Reason)
			}
			assert.Contains(t, decision.Reason, c.why)
		})
	}
}

func TestEKTrustRefuses(t *testing.T) {
	root := newEKCA(t, nil)
	ek := rsaEK(t)
	good := root.certify(t, leaf(), ek)
	trust := attest.EKTrust{Roots: []*x509.Certificate{root.cert}}
	for name, c := range map[string]struct {
		ek   exchange.EK
		cert []byte
		want attest.Code
	}{
		"not a certificate":    {ek, []byte("certificate"), attest.EKCertificateMalformed},
		"cut off":              {ek, good[:len(good)-1], attest.EKCertificateMalformed},
		"bytes follow":         {ek, append(append([]byte{}, good...), 0), attest.EKCertificateMalformed},
		"of another key":       {rsaEK(t), good, attest.EKCertificateKey},
		"of another algorithm": {exchange.EK{Key: p256Key(t).Public()}, good, attest.EKCertificateKey},
		"of no key":            {exchange.EK{}, good, attest.EKCertificateKey},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := trust.Check(c.ek, c.cert, ekTime())
			requireCode(t, c.want, err)
		})
	}
}
