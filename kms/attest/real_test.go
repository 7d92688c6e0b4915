package attest_test

import (
	"crypto/x509"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/attest"
	"keywright.dev/kms/claims"
	"keywright.dev/kms/exchange"
)

// recordedTPM is what a TPM (swtpm) said after the boot of the fixture
// ovmf-secureboot-uki: its keys and certificates, and a quote over
// [statement].
type recordedTPM struct {
	AK, Attested, Signature, PCRs []byte
	Root, Intermediate            []byte      // of the EK certificates, DER
	P384                          certifiedEK `json:"ecc-nist-p384"`
	RSA                           certifiedEK `json:"rsa-2048"`
}

type certifiedEK struct{ EK, Certificate []byte }

func readTPM(t testing.TB) recordedTPM {
	t.Helper()
	data, err := os.ReadFile("testdata/swtpm.json")
	require.NoError(t, err)
	var recorded recordedTPM
	require.NoError(t, json.Unmarshal(data, &recorded))
	return recorded
}

func TestQuoteOfATPM(t *testing.T) {
	recorded := readTPM(t)
	ak, err := exchange.CheckAK(recorded.AK)
	require.NoError(t, err)
	pcrs, err := exchange.ParsePCRValues(recorded.PCRs)
	require.NoError(t, err)
	q, err := attest.CheckQuote(attest.AK{Name: ak.Name, Key: ak.Key},
		attest.Quote{Attested: recorded.Attested, Signature: recorded.Signature, PCRs: pcrs}, statement())
	require.NoError(t, err)
	boot, err := attest.NewAppraiser(1).Appraise(q, readLog(t, "ovmf-secureboot-uki"))
	require.NoError(t, err)
	assert.Equal(t, claims.Exact, boot.Tier)
	assert.EqualValues(t, 2, boot.Counters.ResetCount)
}

func TestCertificatesOfATPM(t *testing.T) {
	recorded := readTPM(t)
	var trust attest.EKTrust
	for _, der := range [][]byte{recorded.Root, recorded.Intermediate} {
		ca, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		trust.Roots = append(trust.Roots, ca)
	}
	now := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, certified := range []certifiedEK{recorded.P384, recorded.RSA} {
		ek, err := exchange.CheckEK(certified.EK)
		require.NoError(t, err)
		decision, err := trust.Check(ek, certified.Certificate, now)
		require.NoError(t, err)
		assert.Equal(t, attest.EKDecision{Basis: attest.ByCertificate}, decision)
	}
}
