package attest

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/subtle"

	"golang.org/x/crypto/cryptobyte"

	"keywright.dev/kms/exchange"
)

const (
	// maxAttested bounds a TPMS_ATTEST: ours has 145 bytes.
	maxAttested = 1 << 10
	// maxSignature bounds a TPMT_SIGNATURE: RSA-4096 takes 518 bytes.
	maxSignature = 1 << 10

	tpmGenerated   = 0xff544347 // TPM_GENERATED_VALUE
	tpmAttestQuote = 0x8018     // TPM_ST_ATTEST_QUOTE
	tpmEndorsement = "\x40\x00\x00\x0b"
	algSHA256      = 0x000b
)

// AK is the attestation key that must have signed: a primary key of the
// endorsement hierarchy.
type AK struct {
	// Name is its TPM Name, 34 bytes for SHA-256.
	Name []byte
	// Key is an *ecdsa.PublicKey on P-256 or an *rsa.PublicKey of 2048 to 4096
	// bits.
	Key crypto.PublicKey
}

// Quote is what a machine sends as its TPM's statement.
type Quote struct {
	Attested  []byte // TPMS_ATTEST, TPM 2.0 part 2, section 10.12.12
	Signature []byte // TPMT_SIGNATURE, TPM 2.0 part 2, section 11.3.4
	PCRs      exchange.PCRValues
}

// Quoted is what a verified quote says. Only [CheckQuote] makes one.
type Quoted struct {
	pcrs     exchange.PCRValues
	counters Counters
	firmware uint64
}

// PCR returns the quoted value of a PCR, and whether the quote covers it.
func (q *Quoted) PCR(pcr uint) ([sha256.Size]byte, bool) { return q.pcrs.Value(pcr) }

// Counters returns the TPM's clock and counters at the time of the quote.
func (q *Quoted) Counters() Counters { return q.counters }

// CheckQuote verifies a quote: the signature before anything else, then magic,
// type, signer, extraData, the exact selection of [exchange.Selection] in the
// SHA-256 bank, and the digest over the PCR values. Its errors are [*Error].
func CheckQuote(ak AK, q Quote, extraData [sha256.Size]byte) (Quoted, error) {
	if len(q.Attested) > maxAttested || len(q.Signature) > maxSignature {
		return Quoted{}, refuse(QuoteSize, "%d bytes attested (at most %d), signature of %d (at most %d)",
			len(q.Attested), maxAttested, len(q.Signature), maxSignature)
	}
	if err := checkSignature(ak.Key, q.Attested, q.Signature); err != nil {
		return Quoted{}, err
	}
	a, err := parseAttested(q.Attested)
	if err != nil {
		return Quoted{}, err
	}
	if err := a.check(ak.Name, extraData, &q.PCRs); err != nil {
		return Quoted{}, err
	}
	return Quoted{q.PCRs, a.counters, a.firmware}, nil
}

// attested is a TPMS_ATTEST of type quote.
type attested struct {
	signer, extraData []byte
	counters          Counters
	firmware          uint64
	selection, digest []byte
}

func parseAttested(data []byte) (attested, error) {
	var a attested
	var magic uint32
	var kind uint16
	in := cryptobyte.String(data)
	if !in.ReadUint32(&magic) || !in.ReadUint16(&kind) {
		return a, refuse(QuoteMalformed, "%d bytes are too short for an attestation", len(data))
	}
	if magic != tpmGenerated {
		return a, refuse(QuoteMagic, "magic 0x%08x, want 0x%08x: the TPM did not make these bytes", magic, uint32(tpmGenerated))
	}
	if kind != tpmAttestQuote {
		return a, refuse(QuoteType, "attestation of type 0x%04x, want a quote, 0x%04x", kind, tpmAttestQuote)
	}
	if !a.readBody(&in) || !a.readSelection(&in) {
		return a, refuse(QuoteMalformed, "the attestation of %d bytes is cut off or has a value out of range", len(data))
	}
	if !in.Empty() {
		return a, refuse(QuoteMalformed, "%d bytes follow the attestation", len(in))
	}
	return a, nil
}

func (a *attested) readBody(in *cryptobyte.String) bool {
	var safe uint8
	ok := readSized(in, &a.signer) && readSized(in, &a.extraData) &&
		in.ReadUint64(&a.counters.Clock) &&
		in.ReadUint32(&a.counters.ResetCount) && in.ReadUint32(&a.counters.RestartCount) &&
		in.ReadUint8(&safe) && safe <= 1 && in.ReadUint64(&a.firmware)
	a.counters.Safe = safe == 1
	return ok
}

// readSelection takes the TPML_PCR_SELECTION as bytes: it has one acceptable
// value only.
func (a *attested) readSelection(in *cryptobyte.String) bool {
	whole := *in
	var banks uint32
	if !in.ReadUint32(&banks) || banks > 16 {
		return false
	}
	for range banks {
		var bank uint16
		var bitmap cryptobyte.String
		if !in.ReadUint16(&bank) || !in.ReadUint8LengthPrefixed(&bitmap) {
			return false
		}
	}
	a.selection = whole[:len(whole)-len(*in)]
	return readSized(in, &a.digest)
}

func (a *attested) check(akName []byte, extraData [sha256.Size]byte, pcrs *exchange.PCRValues) error {
	if want := qualifiedName(akName); !bytes.Equal(a.signer, want) {
		return refuse(QuoteSigner, "signed as %x, want %x: the key is not a primary of the endorsement hierarchy, or not the one enrolled", a.signer, want)
	}
	if subtle.ConstantTimeCompare(a.extraData, extraData[:]) != 1 {
		return refuse(QuoteExtraData, "extraData %x, want %x: the quote answers another statement", a.extraData, extraData)
	}
	if want := exchange.MarshaledSelection(); !bytes.Equal(a.selection, want) {
		return refuse(QuoteSelection, "PCR selection %x, want %x: SHA-256 bank, PCRs 0 to 9 and 11 to 15", a.selection, want)
	}
	if want := pcrs.CompositeDigest(); subtle.ConstantTimeCompare(a.digest, want[:]) != 1 {
		return refuse(QuoteDigest, "the quote covers PCR digest %x, the PCR values sent have %x", a.digest, want)
	}
	return nil
}

// qualifiedName returns the Qualified Name that a primary key of the
// endorsement hierarchy signs under: its own Name hashed behind the
// hierarchy's (TPM 2.0 part 1, section 16).
func qualifiedName(akName []byte) []byte {
	sum := sha256.Sum256(append([]byte(tpmEndorsement), akName...))
	return append([]byte{algSHA256 >> 8, algSHA256 & 0xff}, sum[:]...)
}

// readSized reads a TPM2B.
func readSized(in *cryptobyte.String, out *[]byte) bool {
	var body cryptobyte.String
	if !in.ReadUint16LengthPrefixed(&body) {
		return false
	}
	*out = body
	return true
}
