package exchange

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
)

// EKTemplate names one of the standard templates of an endorsement key. A
// machine uses one of them for as long as it is enrolled.
type EKTemplate string

// The endorsement key templates of the TCG EK Credential Profile for TPM 2.0,
// version 2.5, appendix B.
const (
	// EKRSA2048 is template L-1.
	EKRSA2048 EKTemplate = "rsa-2048"
	// EKP256 is template L-2.
	EKP256 EKTemplate = "ecc-nist-p256"
	// EKP384 is template H-3.
	EKP384 EKTemplate = "ecc-nist-p384"
)

// ErrTemplate means that a TPM public area is not exactly one of the templates
// that this package knows.
var ErrTemplate = errors.New("not a key of a known template")

// The public areas (TPMT_PUBLIC, TPM 2.0 part 2, section 12.2.4) up to, and
// without, their unique field. docs/formats/tpm-templates.md takes them apart.
const (
	ekRSA2048Head = "\x00\x01" + "\x00\x0b" + "\x00\x03\x00\xb2" + "\x00\x20" + ekPolicyA +
		"\x00\x06\x00\x80\x00\x43" + "\x00\x10" + "\x08\x00" + "\x00\x00\x00\x00"
	ekP256Head = "\x00\x23" + "\x00\x0b" + "\x00\x03\x00\xb2" + "\x00\x20" + ekPolicyA +
		"\x00\x06\x00\x80\x00\x43" + "\x00\x10" + "\x00\x03" + "\x00\x10"
	ekP384Head = "\x00\x23" + "\x00\x0c" + "\x00\x03\x00\xf2" + "\x00\x30" + ekPolicyB384 +
		"\x00\x06\x01\x00\x00\x43" + "\x00\x10" + "\x00\x04" + "\x00\x10"
	akHead = "\x00\x23" + "\x00\x0b" + "\x00\x05\x04\x72" + "\x00\x00" +
		"\x00\x10" + "\x00\x18\x00\x0b" + "\x00\x03" + "\x00\x10"

	// ekPolicyA is PolicySecret(TPM_RH_ENDORSEMENT) under SHA-256.
	ekPolicyA = "\x83\x71\x97\x67\x44\x84\xb3\xf8\x1a\x90\xcc\x8d\x46\xa5\xd7\x24" +
		"\xfd\x52\xd7\x6e\x06\x52\x0b\x64\xf2\xa1\xda\x1b\x33\x14\x69\xaa"
	// ekPolicyB384 is PolicyB of the profile under SHA-384.
	ekPolicyB384 = "\xb2\x6e\x7d\x28\xd1\x1a\x50\xbc\x53\xd8\x82\xbc\xf5\xfd\x3a\x1a" +
		"\x07\x41\x48\xbb\x35\xd3\xb4\xe4\xcb\x1c\x0a\xd9\xbd\xe4\x19\xca" +
		"\xcb\x47\xba\x09\x69\x96\x46\x15\x0f\x9f\xc0\x00\xf3\xf8\x0e\x12"
)

const (
	rsaBytes  = 256
	p256Bytes = 32
	// shortID is how many characters of a machine id people are shown.
	shortID = 8
)

// EK is an endorsement key whose public area is that of a standard template.
type EK struct {
	Template EKTemplate
	Public   []byte           // TPMT_PUBLIC
	Name     []byte           // TPM Name: algorithm id and digest, 34 or 50 bytes
	Key      crypto.PublicKey // *rsa.PublicKey or *ecdsa.PublicKey
}

// AK is an attestation key whose public area is that of our template.
type AK struct {
	Public []byte // TPMT_PUBLIC
	Name   []byte // TPM Name: algorithm id and digest, 34 bytes
	Key    *ecdsa.PublicKey
}

// EKTemplates returns the templates in the order in which a machine that could
// use several of them prefers them.
func EKTemplates() []EKTemplate {
	return []EKTemplate{EKP384, EKP256, EKRSA2048}
}

// ParseEKTemplate returns the template of that name.
func ParseEKTemplate(name string) (EKTemplate, error) {
	t := EKTemplate(name)
	if t.head() == "" {
		return "", fmt.Errorf("%q is not an EK template: it is one of %q", name, EKTemplates())
	}
	return t, nil
}

// Template returns the public area to hand to TPM2_CreatePrimary in the
// endorsement hierarchy. Its error is for a t that is none of the constants.
func (t EKTemplate) Template() (tpm2.TPMTPublic, error) {
	switch t {
	case EKRSA2048:
		return parsePublic(ekRSA2048Head + sized(make([]byte, rsaBytes)))
	case EKP256:
		zero := sized(make([]byte, p256Bytes))
		return parsePublic(ekP256Head + zero + zero)
	case EKP384:
		return parsePublic(ekP384Head + sized(nil) + sized(nil))
	default:
		return tpm2.TPMTPublic{}, fmt.Errorf("%q: %w", t, ErrTemplate)
	}
}

// CertificateIndex returns the NV index of the template's EK certificate
// (TCG EK Credential Profile, section 2.2.1), or 0 for an unknown template.
func (t EKTemplate) CertificateIndex() uint32 {
	switch t {
	case EKRSA2048:
		return 0x01c00002
	case EKP256:
		return 0x01c0000a
	case EKP384:
		return 0x01c00016
	default:
		return 0
	}
}

// AKTemplate returns the public area of our attestation key to hand to
// TPM2_CreatePrimary in the endorsement hierarchy: ECC NIST P-256, ECDSA with
// SHA-256, restricted. Its unique field is a label, so that no other software
// that uses a common template derives the same key by chance.
func AKTemplate() (tpm2.TPMTPublic, error) {
	label := sha256.Sum256([]byte("keywright/ak/v1\x00"))
	return parsePublic(akHead + sized(label[:]) + sized(make([]byte, p256Bytes)))
}

// CheckEK accepts a TPMT_PUBLIC (no size in front) that is, byte for byte, a
// standard template with a key in its unique field. Its error is [ErrTemplate].
func CheckEK(public []byte) (EK, error) {
	for _, t := range EKTemplates() {
		unique, ok := bytes.CutPrefix(public, []byte(t.head()))
		if !ok {
			continue
		}
		key, err := t.key(unique)
		if err != nil {
			return EK{}, fmt.Errorf("checking an endorsement key (%s): %w: %w", t, ErrTemplate, err)
		}
		return EK{t, bytes.Clone(public), t.name(public), key}, nil
	}
	return EK{}, fmt.Errorf("checking an endorsement key: %w", ErrTemplate)
}

// CheckAK accepts a TPMT_PUBLIC (no size in front) that is, byte for byte, our
// template with a key in its unique field. Its error is [ErrTemplate].
func CheckAK(public []byte) (AK, error) {
	unique, ok := bytes.CutPrefix(public, []byte(akHead))
	if !ok {
		return AK{}, fmt.Errorf("checking an attestation key: %w", ErrTemplate)
	}
	key, err := eccKey(elliptic.P256(), unique)
	if err != nil {
		return AK{}, fmt.Errorf("checking an attestation key: %w: %w", ErrTemplate, err)
	}
	return AK{bytes.Clone(public), nameSHA256(public), key}, nil
}

// MachineID returns the id of the machine that holds the key: SHA-256 over its
// TPMT_PUBLIC in lower-case hexadecimal, 64 characters. It is also the EK hash
// that a person compares with the hypervisor's.
func (ek EK) MachineID() string {
	sum := sha256.Sum256(ek.Public)
	return hex.EncodeToString(sum[:])
}

// ShortID returns the first 8 characters of a machine id, for people to read.
func ShortID(machine string) string {
	return machine[:min(shortID, len(machine))]
}

// head returns the template's fixed part, "" for an unknown template.
func (t EKTemplate) head() string {
	switch t {
	case EKRSA2048:
		return ekRSA2048Head
	case EKP256:
		return ekP256Head
	case EKP384:
		return ekP384Head
	default:
		return ""
	}
}

func (t EKTemplate) key(unique []byte) (crypto.PublicKey, error) {
	switch t {
	case EKRSA2048:
		return rsaKey(unique)
	case EKP256:
		return eccKey(elliptic.P256(), unique)
	default:
		return eccKey(elliptic.P384(), unique)
	}
}

func (t EKTemplate) name(public []byte) []byte {
	if t == EKP384 {
		sum := sha512.Sum384(public)
		return append([]byte{0x00, 0x0c}, sum[:]...)
	}
	return nameSHA256(public)
}

// nameSHA256 returns the TPM Name of an object whose nameAlg is SHA-256 (TPM
// 2.0 part 1, section 16).
func nameSHA256(public []byte) []byte {
	sum := sha256.Sum256(public)
	return append([]byte{0x00, 0x0b}, sum[:]...)
}

// rsaKey reads a TPM2B_PUBLIC_KEY_RSA of 2048 bits; the template's exponent 0
// stands for 65537.
func rsaKey(unique []byte) (*rsa.PublicKey, error) {
	var modulus []byte
	in := cryptobyte.String(unique)
	if !readBytes16(&in, &modulus) || !in.Empty() || len(modulus) != rsaBytes {
		return nil, fmt.Errorf("the modulus does not have %d bytes", rsaBytes)
	}
	n := new(big.Int).SetBytes(modulus)
	if n.BitLen() != 8*rsaBytes || n.Bit(0) == 0 {
		return nil, errors.New("the modulus is not an odd number of 2048 bits")
	}
	return &rsa.PublicKey{N: n, E: 65537}, nil
}

// eccKey reads a TPMS_ECC_POINT whose coordinates have their full size
// (TPM 2.0 part 1, appendix C.8) and which lies on the curve.
func eccKey(curve elliptic.Curve, unique []byte) (*ecdsa.PublicKey, error) {
	var x, y []byte
	size := (curve.Params().BitSize + 7) / 8
	in := cryptobyte.String(unique)
	if !readBytes16(&in, &x) || !readBytes16(&in, &y) || !in.Empty() || len(x) != size || len(y) != size {
		return nil, fmt.Errorf("the point does not have two coordinates of %d bytes", size)
	}
	key, err := ecdsa.ParseUncompressedPublicKey(curve, slices.Concat([]byte{4}, x, y))
	if err != nil {
		return nil, errors.New("the point is not on the curve")
	}
	return key, nil
}

func parsePublic(public string) (tpm2.TPMTPublic, error) {
	p, err := tpm2.Unmarshal[tpm2.TPMTPublic]([]byte(public))
	if err != nil {
		return tpm2.TPMTPublic{}, fmt.Errorf("reading a TPM public area: %w", err)
	}
	return *p, nil
}

// sized returns data as a TPM2B: behind its length in 16 bits.
func sized(data []byte) string {
	return string([]byte{byte(len(data) >> 8), byte(len(data))}) + string(data)
}
