// Package sim simulates machines for tests: a TPM in software, with its own
// endorsement and attestation key, and the guest's side of the exchange.
//
// Invariants:
//   - A simulated TPM can make nothing that a real one could not, unless a test
//     asks for a lie by name: it signs what it is told, and its keys are of the
//     templates of package exchange.
//   - Nothing on the service's side is simulated.
//
// It refuses to be part of a binary: only tests import it.
package sim

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"

	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
)

// TPM is a TPM in software with ECC P-256 keys. It is not safe for concurrent
// use.
type TPM struct {
	ek, ak *ecdsa.PrivateKey
	// EKPublic and AKPublic are TPMT_PUBLIC.
	EKPublic, AKPublic []byte

	PCRs  exchange.PCRValues
	Clock tpm2.TPMSClockInfo
	// saved is the clock that is kept over a loss of power without notice.
	saved uint64
}

// NewTPM makes a TPM with fresh keys, as it is before its first boot.
func NewTPM() (*TPM, error) {
	ek, ekPublic, err := newKey(exchange.EKP256.Template())
	if err != nil {
		return nil, fmt.Errorf("making an endorsement key: %w", err)
	}
	ak, akPublic, err := newKey(exchange.AKTemplate())
	if err != nil {
		return nil, fmt.Errorf("making an attestation key: %w", err)
	}
	return &TPM{ek: ek, ak: ak, EKPublic: ekPublic, AKPublic: akPublic, Clock: tpm2.TPMSClockInfo{Safe: true}}, nil
}

// newKey puts a fresh key into the unique field of a template.
func newKey(template tpm2.TPMTPublic, err error) (*ecdsa.PrivateKey, []byte, error) {
	if err != nil {
		return nil, nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, nil, err
	}
	template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: point[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: point[33:]},
	})
	return key, tpm2.Marshal(template), nil
}

// Machine returns the machine id.
func (t *TPM) Machine() string {
	sum := sha256.Sum256(t.EKPublic)
	return fmt.Sprintf("%x", sum)
}

// Boot resets the TPM and extends it with what log says. Before, it was told that
// its power would go.
func (t *TPM) Boot(log *Log) {
	t.PCRs = log.PCRs
	t.Clock.ResetCount++
	t.Clock.RestartCount = 0
	t.Clock.Safe = true
	t.Pass(1000)
	t.saved = t.Clock.Clock
}

// Crash is [TPM.Boot] after a loss of power without notice: the clock goes back
// to what was saved (TPM 2.0 part 1, section 36.3).
func (t *TPM) Crash(log *Log) {
	t.Clock.Clock = t.saved
	t.Boot(log)
	t.Clock.Safe = false
}

// Restart is [TPM.Boot] of a machine that had saved its TPM's state, as one does
// that hibernates: TPM2_Shutdown(STATE), TPM2_Startup(CLEAR).
func (t *TPM) Restart(log *Log) {
	t.PCRs = log.PCRs
	t.Resume()
}

// Resume is the end of a suspension to memory: TPM2_Shutdown(STATE),
// TPM2_Startup(STATE). The PCRs are as they were.
func (t *TPM) Resume() {
	t.Clock.RestartCount++
	t.Clock.Safe = true
	t.Pass(1000)
	t.saved = t.Clock.Clock
}

// Pass lets powered time pass, in milliseconds.
func (t *TPM) Pass(time uint64) { t.Clock.Clock += time }

// Snapshot returns a copy of the TPM with all its state, as a hypervisor makes it
// of one that runs or is off.
func (t *TPM) Snapshot() *TPM {
	copied := *t
	return &copied
}

// Extend is TPM2_PCR_Extend of the SHA-256 bank.
func (t *TPM) Extend(pcr uint, event [32]byte) {
	value, _ := t.PCRs.Value(pcr)
	t.PCRs.Set(pcr, exchange.Extend(value, event))
}

// Attestation returns the TPMS_ATTEST of a quote, for tests to falsify.
func (t *TPM) Attestation(extraData [32]byte) tpm2.TPMSAttest {
	t.Clock.Clock++
	digest := t.PCRs.CompositeDigest()
	signer := sha256.Sum256(append([]byte{0x40, 0, 0, 0x0b}, t.akName()...))
	return tpm2.TPMSAttest{
		Magic:           tpm2.TPMGeneratedValue,
		Type:            tpm2.TPMSTAttestQuote,
		QualifiedSigner: tpm2.TPM2BName{Buffer: append([]byte{0x00, 0x0b}, signer[:]...)},
		ExtraData:       tpm2.TPM2BData{Buffer: extraData[:]},
		ClockInfo:       t.Clock,
		FirmwareVersion: 1,
		Attested: tpm2.NewTPMUAttest(tpm2.TPMSTAttestQuote, &tpm2.TPMSQuoteInfo{
			PCRSelect: exchange.SelectionList(), PCRDigest: tpm2.TPM2BDigest{Buffer: digest[:]},
		}),
	}
}

func (t *TPM) akName() []byte {
	sum := sha256.Sum256(t.AKPublic)
	return append([]byte{0x00, 0x0b}, sum[:]...)
}

// Quote returns a TPMS_ATTEST over the selection and its TPMT_SIGNATURE.
func (t *TPM) Quote(extraData [32]byte) (attested, signature []byte, err error) {
	attested = tpm2.Marshal(t.Attestation(extraData))
	signature, err = t.Sign(attested)
	return attested, signature, err
}

// Sign signs any bytes with the attestation key, which a real TPM would not.
func (t *TPM) Sign(attested []byte) ([]byte, error) {
	sum := sha256.Sum256(attested)
	r, s, err := ecdsa.Sign(rand.Reader, t.ak, sum[:])
	if err != nil {
		return nil, err
	}
	return tpm2.Marshal(tpm2.TPMTSignature{
		SigAlg: tpm2.TPMAlgECDSA,
		Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &tpm2.TPMSSignatureECC{
			Hash:       tpm2.TPMAlgSHA256,
			SignatureR: tpm2.TPM2BECCParameter{Buffer: r.FillBytes(make([]byte, 32))},
			SignatureS: tpm2.TPM2BECCParameter{Buffer: s.FillBytes(make([]byte, 32))},
		}),
	}), nil
}

// errCredential is what TPM2_ActivateCredential fails with.
var errCredential = errors.New("the credential is not for these keys")

// ActivateCredential is TPM2_ActivateCredential (TPM 2.0 part 1, section 24).
func (t *TPM) ActivateCredential(blob, encrypted []byte) (secret.Bytes, error) {
	point, err := tpm2.Unmarshal[tpm2.TPMSECCPoint](encrypted)
	if err != nil {
		return secret.Bytes{}, errCredential
	}
	var integrity cryptobyte.String // TPMS_ID_OBJECT is this and the rest
	identity := cryptobyte.String(blob)
	if !identity.ReadUint16LengthPrefixed(&integrity) {
		return secret.Bytes{}, errCredential
	}
	seed, err := t.seed(point)
	if err != nil {
		return secret.Bytes{}, errCredential
	}
	mac := hmac.New(sha256.New, tpm2.KDFa(crypto.SHA256, seed, "INTEGRITY", nil, nil, 256))
	mac.Write(identity)
	mac.Write(t.akName())
	if !hmac.Equal(mac.Sum(nil), integrity) {
		return secret.Bytes{}, errCredential
	}
	return t.decryptIdentity(seed, identity)
}

// seed is the ECDH of the endorsement key (TPM 2.0 part 1, section C.6.1).
func (t *TPM) seed(point *tpm2.TPMSECCPoint) ([]byte, error) {
	x, y := pad32(point.X.Buffer), pad32(point.Y.Buffer)
	peer, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, x...), y...))
	if err != nil {
		return nil, err
	}
	theirs, err := peer.ECDH()
	if err != nil {
		return nil, err
	}
	mine, err := t.ek.ECDH()
	if err != nil {
		return nil, err
	}
	z, err := mine.ECDH(theirs)
	if err != nil {
		return nil, err
	}
	own, err := t.ek.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	return tpm2.KDFe(crypto.SHA256, z, "IDENTITY", x, own[1:33], 256), nil
}

func pad32(b []byte) []byte { return new(big.Int).SetBytes(b).FillBytes(make([]byte, 32)) }

func (t *TPM) decryptIdentity(seed, encrypted []byte) (secret.Bytes, error) {
	block, err := aes.NewCipher(tpm2.KDFa(crypto.SHA256, seed, "STORAGE", t.akName(), nil, 128))
	if err != nil {
		return secret.Bytes{}, err
	}
	plain := bytes.Clone(encrypted)
	cipher.NewCFBDecrypter(block, make([]byte, block.BlockSize())).XORKeyStream(plain, encrypted) //nolint:staticcheck // the TPM's mode
	digest, err := tpm2.Unmarshal[tpm2.TPM2BDigest](plain)
	if err != nil {
		return secret.Bytes{}, errCredential
	}
	return secret.New(digest.Buffer), nil
}

// WithAnotherEK returns the same TPM as it shows itself under another
// endorsement key; the attestation key stays.
func (t *TPM) WithAnotherEK() (*TPM, error) {
	ek, public, err := newKey(exchange.EKP256.Template())
	if err != nil {
		return nil, fmt.Errorf("making an endorsement key: %w", err)
	}
	other := *t
	other.ek, other.EKPublic = ek, public
	return &other, nil
}
