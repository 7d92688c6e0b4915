package attest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
)

// Signature schemes, TPM_ALG_ID (TCG Algorithm Registry).
const (
	algRSASSA = 0x0014
	algRSAPSS = 0x0016
	algECDSA  = 0x0018
)

const (
	minRSABits = 2048
	maxRSABits = 4096
	p256Bytes  = 32
)

// checkSignature verifies a TPMT_SIGNATURE over SHA-256 of data. The scheme
// must be one of the key's kind.
func checkSignature(key crypto.PublicKey, data, signature []byte) error {
	var scheme, hash uint16
	in := cryptobyte.String(signature)
	if !in.ReadUint16(&scheme) || !in.ReadUint16(&hash) {
		return refuse(QuoteMalformed, "a signature of %d bytes is too short", len(signature))
	}
	if hash != algSHA256 {
		return refuse(QuoteSignature, "signed with hash 0x%04x, want SHA-256", hash)
	}
	sum := sha256.Sum256(data)
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		return checkECDSA(key, scheme, sum[:], in)
	case *rsa.PublicKey:
		return checkRSA(key, scheme, sum[:], in)
	default:
		return refuse(QuoteKey, "an attestation key of type %T cannot sign quotes", key)
	}
}

func checkECDSA(key *ecdsa.PublicKey, scheme uint16, sum []byte, in cryptobyte.String) error {
	if key.Curve != elliptic.P256() {
		return refuse(QuoteKey, "the attestation key is not on curve P-256")
	}
	if scheme != algECDSA {
		return refuse(QuoteSignature, "signed with scheme 0x%04x, want ECDSA for this key", scheme)
	}
	var r, s []byte
	if !readSized(&in, &r) || !readSized(&in, &s) || !in.Empty() || len(r) > p256Bytes || len(s) > p256Bytes {
		return refuse(QuoteMalformed, "the signature is not two numbers of at most %d bytes", p256Bytes)
	}
	if !ecdsa.Verify(key, sum, new(big.Int).SetBytes(r), new(big.Int).SetBytes(s)) {
		return refuse(QuoteSignature, "the signature does not verify with the machine's attestation key")
	}
	return nil
}

func checkRSA(key *rsa.PublicKey, scheme uint16, sum []byte, in cryptobyte.String) error {
	if bits := key.N.BitLen(); bits < minRSABits || bits > maxRSABits {
		return refuse(QuoteKey, "the attestation key has %d bits, want %d to %d", bits, minRSABits, maxRSABits)
	}
	var signature []byte
	if !readSized(&in, &signature) || !in.Empty() {
		return refuse(QuoteMalformed, "the signature is not one number")
	}
	var err error
	switch scheme {
	case algRSASSA:
		err = rsa.VerifyPKCS1v15(key, crypto.SHA256, sum, signature)
	case algRSAPSS:
		err = rsa.VerifyPSS(key, crypto.SHA256, sum, signature, nil)
	default:
		return refuse(QuoteSignature, "signed with scheme 0x%04x, want RSASSA or RSAPSS for this key", scheme)
	}
	if err != nil {
		return refuse(QuoteSignature, "the signature does not verify with the machine's attestation key")
	}
	return nil
}
