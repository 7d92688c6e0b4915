package exchange

import (
	"bytes"
	"crypto/sha256"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// PCRCount is how many PCRs a quote covers.
const PCRCount = 15

// releasePCR is extended at every end of a boot exchange, so that a machine
// gets its keys once a boot.
const releasePCR = 15

// imaPCR grows while the system runs, so it is not quoted.
const imaPCR = 10

// PCRValues holds the SHA-256 bank's values of the quoted PCRs in the order of
// [Selection].
type PCRValues [PCRCount][sha256.Size]byte

// Selection returns the PCRs of the SHA-256 bank that a quote covers, in
// ascending order: 0 to 9 and 11 to 15.
func Selection() []uint {
	pcrs := make([]uint, 0, PCRCount)
	for pcr := range uint(releasePCR + 1) {
		if pcr != imaPCR {
			pcrs = append(pcrs, pcr)
		}
	}
	return pcrs
}

// SelectionBitmap returns [Selection] as a bitmap: PCR n is bit n%8 of byte n/8
// (TPM 2.0 part 2, section 10.6.2).
func SelectionBitmap() [selectionSize]byte {
	return [selectionSize]byte{0xff, 0xfb, 0x00}
}

// SelectionList returns [Selection] as the TPML_PCR_SELECTION of a command or
// an attestation: one bank, SHA-256.
func SelectionList() tpm2.TPMLPCRSelection {
	bitmap := SelectionBitmap()
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{
		Hash:      tpm2.TPMAlgSHA256,
		PCRSelect: bitmap[:],
	}}}
}

// MarshaledSelection returns [SelectionList] as the 10 bytes a TPM writes.
func MarshaledSelection() []byte {
	bitmap := SelectionBitmap()
	return append([]byte{0, 0, 0, 1, 0, 0x0b, selectionSize}, bitmap[:]...)
}

// ParsePCRValues decodes what [PCRValues.Marshal] encodes. Its error is
// [ErrMalformed].
func ParsePCRValues(data []byte) (PCRValues, error) {
	var values PCRValues
	if len(data) != PCRCount*sha256.Size {
		return values, fmt.Errorf("%w PCR values: %d bytes, want %d", ErrMalformed, len(data), PCRCount*sha256.Size)
	}
	for i := range values {
		values[i] = [sha256.Size]byte(data[i*sha256.Size:])
	}
	return values, nil
}

// Marshal encodes the values one after another, 480 bytes.
func (v *PCRValues) Marshal() []byte {
	var out bytes.Buffer
	for i := range v {
		out.Write(v[i][:])
	}
	return out.Bytes()
}

// Value returns the value of one PCR, and whether a quote covers it.
func (v *PCRValues) Value(pcr uint) ([sha256.Size]byte, bool) {
	i, ok := position(pcr)
	if !ok {
		return [sha256.Size]byte{}, false
	}
	return v[i], true
}

// Set sets the value of one PCR and tells whether a quote covers it.
func (v *PCRValues) Set(pcr uint, value [sha256.Size]byte) bool {
	i, ok := position(pcr)
	if ok {
		v[i] = value
	}
	return ok
}

// CompositeDigest returns the pcrDigest of a quote over the values: SHA-256 of
// one after another (TPM 2.0 part 2, section 10.12.1).
func (v *PCRValues) CompositeDigest() [sha256.Size]byte {
	return sha256.Sum256(v.Marshal())
}

// Extend returns what a SHA-256 PCR holds after TPM2_PCR_Extend.
func Extend(pcr, event [sha256.Size]byte) [sha256.Size]byte {
	return sha256.Sum256(append(pcr[:], event[:]...))
}

// ReleaseEvent returns what the client extends PCR 15 with once it holds a
// release: SHA-256("keywright/pcr15/release/v1" ‖ 0x00 ‖ release id).
func ReleaseEvent(releaseID []byte) [sha256.Size]byte {
	return digest("keywright/pcr15/release/v1", releaseID)
}

// NoReleaseEvent returns what PCR 15 is extended with before control leaves
// the measured initramfs without a release:
// SHA-256("keywright/pcr15/no-release/v1" ‖ 0x00).
func NoReleaseEvent() [sha256.Size]byte {
	return digest("keywright/pcr15/no-release/v1")
}

// position returns where a PCR stands in [PCRValues].
func position(pcr uint) (int, bool) {
	switch {
	case pcr < imaPCR:
		return int(pcr), true
	case pcr > imaPCR && pcr <= releasePCR:
		return int(pcr) - 1, true
	default:
		return 0, false
	}
}
