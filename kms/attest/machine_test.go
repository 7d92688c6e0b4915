package attest_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/attest"
	"keywright.dev/kms/exchange"
)

// machine is a software attestation key that signs whatever it is told to.
type machine struct {
	name []byte
	key  crypto.Signer
	// scheme is the signature scheme it says it used.
	scheme tpm2.TPMAlgID
}

func newMachine(t testing.TB) *machine {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return &machine{testName(), key, tpm2.TPMAlgECDSA}
}

func newRSAMachine(t testing.TB, bits int, scheme tpm2.TPMAlgID) *machine {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	require.NoError(t, err)
	return &machine{testName(), key, scheme}
}

func testName() []byte {
	sum := sha256.Sum256([]byte("a public area"))
	return append([]byte{0x00, 0x0b}, sum[:]...)
}

func (m *machine) ak() attest.AK { return attest.AK{Name: m.name, Key: m.key.Public()} }

// statement is what the quotes of these tests sign.
func statement() [32]byte { return sha256.Sum256([]byte("a statement")) }

// attestation is a faithful TPMS_ATTEST over the values, for tests to falsify.
func (m *machine) attestation(pcrs exchange.PCRValues) tpm2.TPMSAttest {
	said, digest := statement(), pcrs.CompositeDigest()
	signer := sha256.Sum256(append([]byte{0x40, 0, 0, 0x0b}, m.name...))
	return tpm2.TPMSAttest{
		Magic:           tpm2.TPMGeneratedValue,
		Type:            tpm2.TPMSTAttestQuote,
		QualifiedSigner: tpm2.TPM2BName{Buffer: append([]byte{0x00, 0x0b}, signer[:]...)},
		ExtraData:       tpm2.TPM2BData{Buffer: said[:]},
		ClockInfo:       tpm2.TPMSClockInfo{Clock: 7000, ResetCount: 5, RestartCount: 2, Safe: true},
		FirmwareVersion: 0x2019102300163636,
		Attested: tpm2.NewTPMUAttest(tpm2.TPMSTAttestQuote, &tpm2.TPMSQuoteInfo{
			PCRSelect: exchange.SelectionList(),
			PCRDigest: tpm2.TPM2BDigest{Buffer: digest[:]},
		}),
	}
}

func (m *machine) quote(t testing.TB, pcrs exchange.PCRValues) attest.Quote {
	t.Helper()
	return m.sign(t, tpm2.Marshal(m.attestation(pcrs)), pcrs)
}

// sign makes a quote of any bytes.
func (m *machine) sign(t testing.TB, attested []byte, pcrs exchange.PCRValues) attest.Quote {
	t.Helper()
	sum := sha256.Sum256(attested)
	return attest.Quote{Attested: attested, Signature: tpm2.Marshal(m.signature(t, sum[:])), PCRs: pcrs}
}

func (m *machine) signature(t testing.TB, sum []byte) tpm2.TPMTSignature {
	t.Helper()
	switch key := m.key.(type) {
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, key, sum)
		require.NoError(t, err)
		return tpm2.TPMTSignature{SigAlg: m.scheme, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &tpm2.TPMSSignatureECC{
			Hash:       tpm2.TPMAlgSHA256,
			SignatureR: tpm2.TPM2BECCParameter{Buffer: r.FillBytes(make([]byte, 32))},
			SignatureS: tpm2.TPM2BECCParameter{Buffer: s.FillBytes(make([]byte, 32))},
		})}
	case *rsa.PrivateKey:
		var options crypto.SignerOpts = crypto.SHA256
		if m.scheme == tpm2.TPMAlgRSAPSS {
			options = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto, Hash: crypto.SHA256}
		}
		signed, err := key.Sign(rand.Reader, sum, options)
		require.NoError(t, err)
		return tpm2.TPMTSignature{SigAlg: m.scheme, Signature: tpm2.NewTPMUSignature(m.scheme, &tpm2.TPMSSignatureRSA{
			Hash: tpm2.TPMAlgSHA256, Sig: tpm2.TPM2BPublicKeyRSA{Buffer: signed},
		})}
	}
	t.Fatalf("a key of type %T", m.key)
	return tpm2.TPMTSignature{}
}

// quoted returns a verified quote over the values.
func quoted(t testing.TB, pcrs exchange.PCRValues) attest.Quoted {
	t.Helper()
	m := newMachine(t)
	q, err := attest.CheckQuote(m.ak(), m.quote(t, pcrs), statement())
	require.NoError(t, err)
	return q
}

// appraise appraises a log with the PCRs that it replays to.
func appraise(t testing.TB, log []byte) attest.Boot {
	t.Helper()
	boot, err := attest.NewAppraiser(0).Appraise(quoted(t, replay(t, log)), log)
	require.NoError(t, err)
	return boot
}

func readLog(t testing.TB, name string) []byte {
	t.Helper()
	log, err := os.ReadFile(filepath.Join("testdata", "eventlogs", name+".bin"))
	require.NoError(t, err)
	return log
}

func logNames(t testing.TB) []string {
	t.Helper()
	paths, err := filepath.Glob("testdata/eventlogs/*.bin")
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	for i, path := range paths {
		paths[i] = strings.TrimSuffix(filepath.Base(path), ".bin")
	}
	return paths
}

// recordedPCRs returns what the guest read from its TPM, where it was recorded.
func recordedPCRs(t testing.TB, name string) (exchange.PCRValues, bool) {
	t.Helper()
	var values exchange.PCRValues
	data, err := os.ReadFile(filepath.Join("testdata", "eventlogs", name+".json"))
	if os.IsNotExist(err) {
		return values, false
	}
	require.NoError(t, err)
	var recorded struct{ PCR map[string]string }
	require.NoError(t, json.Unmarshal(data, &recorded))
	for number, digits := range recorded.PCR {
		pcr, err := strconv.ParseUint(number, 10, 8)
		require.NoError(t, err)
		value, err := hex.DecodeString(digits)
		require.NoError(t, err)
		values.Set(uint(pcr), [32]byte(value))
	}
	return values, true
}

// requireCode demands a refusal of that code.
func requireCode(t testing.TB, code attest.Code, err error) {
	t.Helper()
	var refused *attest.Error
	require.ErrorAs(t, err, &refused)
	require.Equal(t, code, refused.Code, err.Error())
}
