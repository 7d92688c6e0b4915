package pki_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/pki"
	"keywright.dev/kms/secret"
)

var start = time.Date(2026, 3, 14, 9, 26, 53, 0, time.UTC)

func newCA(t *testing.T) *pki.CA {
	t.Helper()
	ca, err := pki.NewCA(start)
	require.NoError(t, err)
	return ca
}

func names(t *testing.T, hosts ...string) pki.Names {
	t.Helper()
	n, err := pki.ParseNames(hosts)
	require.NoError(t, err)
	return n
}

func pkcs8(t *testing.T, key any) secret.Bytes {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	return secret.New(der)
}

func TestIdentityComesBack(t *testing.T) {
	made, err := pki.NewIdentity()
	require.NoError(t, err)
	stored, err := made.Marshal()
	require.NoError(t, err)
	opened, err := pki.OpenIdentity(stored)
	require.NoError(t, err)
	stored.Wipe()
	assert.Equal(t, made.Fingerprint(), opened.Fingerprint())

	digest := sha256.Sum256([]byte("what a guest must believe"))
	signature, err := opened.Sign(rand.Reader, digest[:], crypto.SHA256)
	require.NoError(t, err)
	public, err := x509.ParsePKIXPublicKey(made.SPKI())
	require.NoError(t, err)
	assert.True(t, ecdsa.VerifyASN1(public.(*ecdsa.PublicKey), digest[:], signature))
	assert.True(t, opened.Public().(*ecdsa.PublicKey).Equal(public))
	assert.Equal(t, elliptic.P256(), public.(*ecdsa.PublicKey).Curve)
}

func TestFingerprintText(t *testing.T) {
	id, err := pki.NewIdentity()
	require.NoError(t, err)
	sum := sha256.Sum256(id.SPKI())
	assert.Equal(t, "sha256:"+hex.EncodeToString(sum[:]), id.Fingerprint().String())
}

func TestTwoIdentitiesDiffer(t *testing.T) {
	a, err := pki.NewIdentity()
	require.NoError(t, err)
	b, err := pki.NewIdentity()
	require.NoError(t, err)
	assert.NotEqual(t, a.Fingerprint(), b.Fingerprint())
}

func TestOtherKeysAreRefused(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	canary := []byte("correct horse battery staple")
	for want, key := range map[string]secret.Bytes{
		"not an ECDSA P-256 key":         pkcs8(t, p384),
		"identity: not an ECDSA":         pkcs8(t, rsaKey),
		"not a private key in PKCS#8":    secret.Copy(canary),
		"identity: not a private key in": {},
	} {
		_, err := pki.OpenIdentity(key)
		require.ErrorContains(t, err, want)
		assert.NotContains(t, err.Error(), "horse")
		_, err = pki.OpenCA(newCA(t).Certificate(), key)
		require.ErrorContains(t, err, "opening the certificate authority: not a")
	}
}

func TestPrintingShowsNoKey(t *testing.T) {
	id, err := pki.NewIdentity()
	require.NoError(t, err)
	ca := newCA(t)
	for _, key := range []interface{ Marshal() (secret.Bytes, error) }{id, ca} {
		stored, err := key.Marshal()
		require.NoError(t, err)
		parsed, err := x509.ParsePKCS8PrivateKey(stored.Expose())
		require.NoError(t, err)
		private, err := parsed.(*ecdsa.PrivateKey).Bytes()
		require.NoError(t, err)
		scalar := new(big.Int).SetBytes(private)
		for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%d"} {
			out := fmt.Sprintf(verb, key)
			assert.NotContains(t, out, scalar.String(), verb)
			assert.NotContains(t, strings.ToLower(out), scalar.Text(16), verb)
		}
	}
}

func TestCAComesBackAndIssuesUnderTheSameCertificate(t *testing.T) {
	made := newCA(t)
	stored, err := made.Marshal()
	require.NoError(t, err)
	opened, err := pki.OpenCA(made.Certificate(), stored)
	require.NoError(t, err)
	assert.Equal(t, made.PEM(), opened.PEM())

	issued, err := opened.Issue(names(t, "kms.example.com", "192.0.2.7", "2001:db8::7"), start)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(made.PEM()))
	for _, host := range []string{"kms.example.com", "192.0.2.7", "2001:db8::7"} {
		_, err = issued.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: host, CurrentTime: start})
		require.NoError(t, err, host)
	}
	_, err = issued.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: "other.example.com", CurrentTime: start})
	require.Error(t, err)
}

func TestCertificatesSayWhatTheyMayDo(t *testing.T) {
	ca := newCA(t)
	block, rest := pem.Decode(ca.PEM())
	assert.Empty(t, rest)
	root, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	assert.True(t, root.IsCA && root.MaxPathLenZero && root.BasicConstraintsValid)
	assert.Equal(t, x509.KeyUsageCertSign|x509.KeyUsageCRLSign, root.KeyUsage)
	assert.Equal(t, start.AddDate(10, 0, 0), root.NotAfter)
	require.NoError(t, root.CheckSignatureFrom(root))

	issued, err := ca.Issue(names(t, "kms.example.com"), start)
	require.NoError(t, err)
	leaf := issued.Leaf
	assert.False(t, leaf.IsCA)
	assert.Equal(t, x509.KeyUsageDigitalSignature, leaf.KeyUsage)
	assert.Equal(t, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, leaf.ExtKeyUsage)
	assert.Equal(t, start.Add(30*24*time.Hour), leaf.NotAfter)
	assert.Equal(t, start.Add(-time.Hour), leaf.NotBefore)
	assert.NotEqual(t, root.SerialNumber, leaf.SerialNumber)

	again, err := ca.Issue(names(t, "kms.example.com"), start)
	require.NoError(t, err)
	assert.NotEqual(t, leaf.SerialNumber, again.Leaf.SerialNumber)
	assert.NotEqual(t, leaf.RawSubjectPublicKeyInfo, again.Leaf.RawSubjectPublicKeyInfo)
}

func TestOpenCARefusesWhatDoesNotBelongTogether(t *testing.T) {
	ca := newCA(t)
	key, err := ca.Marshal()
	require.NoError(t, err)
	_, err = pki.OpenCA(newCA(t).Certificate(), key)
	require.ErrorContains(t, err, "of another key")
	_, err = pki.OpenCA(ca.PEM(), key)
	require.ErrorContains(t, err, "does not parse")

	issued, err := ca.Issue(names(t, "kms.example.com"), start)
	require.NoError(t, err)
	_, err = pki.OpenCA(issued.Certificate[0], pkcs8(t, issued.PrivateKey))
	require.ErrorContains(t, err, "not an authority's")
}

func TestParseNames(t *testing.T) {
	n := names(t, "kms.example.com", "localhost", "127.0.0.1", "::1")
	assert.Equal(t, []string{"kms.example.com", "localhost"}, n.DNS)
	assert.Equal(t, []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}, n.IPs)
	for _, bad := range []string{
		"", "*.example.com", "a..b", "-a", "a-", "a b", "a\nb", "exämple.com", strings.Repeat("a", 64),
		strings.Repeat("a.", 127), "0.0.0.0", "::", "fe80::1%eth0", "192.0.2.7:443", "https://kms.example.com",
	} {
		_, err := pki.ParseNames([]string{bad})
		require.Error(t, err, bad)
	}
	_, err := pki.ParseNames(nil)
	require.ErrorContains(t, err, "at least one")
	_, err = newCA(t).Issue(pki.Names{}, start)
	require.ErrorContains(t, err, "issuing a server certificate: no name")
}
