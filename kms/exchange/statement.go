package exchange

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
)

// Purpose says which step of the protocol a statement belongs to.
type Purpose string

// The purposes.
const (
	PurposeEnroll Purpose = "enroll"
	PurposeCommit Purpose = "commit"
	PurposeBoot   Purpose = "boot"
	PurposeStage  Purpose = "stage"
	PurposeKey    Purpose = "key"
	// PurposeRekey asks a running system's next secret of a volume, PurposeRekeyed
	// reports what became of it.
	PurposeRekey   Purpose = "rekey"
	PurposeRekeyed Purpose = "rekeyed"
)

// HasAnswer tells whether a secret comes back, so that the statement names a
// recipient.
func (p Purpose) HasAnswer() bool {
	return p == PurposeEnroll || p == PurposeBoot || p == PurposeKey || p == PurposeRekey
}

// Limits of a statement.
const (
	// MaxStatement bounds a marshaled statement, in bytes.
	MaxStatement = 96 << 10
	// MaxVolumes bounds the volumes of one machine.
	MaxVolumes = 64

	maxText       = 255
	statementV1   = "keywright/statement/v1"
	selectionSize = 3
)

// ErrMalformed means that bytes are not in the form this package writes.
var ErrMalformed = errors.New("malformed")

// Statement is what a guest says under a quote by its AK. The quote's extraData
// is [ExtraData] of the marshaled form.
type Statement struct {
	Purpose   Purpose
	Challenge [32]byte // as the service issued it
	Machine   string   // machine id
	// ServiceKey is the fingerprint of the service identity key that the guest
	// will accept the answer from.
	ServiceKey [32]byte
	// Recipient is the guest's ephemeral HPKE public key; empty where no
	// secret comes back.
	Recipient []byte
	Volumes   []Volume
	// Selection is the quoted PCRs as a TPMS_PCR_SELECTION bitmap (TPM 2.0
	// part 2, section 10.6.2).
	Selection [selectionSize]byte
	// Details is JSON of a type that belongs to the purpose; see package api.
	Details []byte
}

// Volume is one LUKS volume in a [Statement].
type Volume struct {
	// ID is what the service named the volume; empty before it did.
	ID string
	// UUID is the LUKS header's.
	UUID string
	// Identity is the header's identity digest; zero before it is known.
	Identity [32]byte
	// Resume is the resume id that the volume's token holds; zero without one.
	Resume [16]byte
}

// ExtraData returns what a quote over statement must carry as extraData:
// SHA-256("keywright/" ‖ purpose ‖ "/v1" ‖ 0x00 ‖ statement).
func ExtraData(purpose Purpose, statement []byte) [32]byte {
	return digest("keywright/"+string(purpose)+"/v1", statement)
}

// Marshal encodes the statement. It fails if a field exceeds its bounds.
func (s *Statement) Marshal() ([]byte, error) {
	var b cryptobyte.Builder
	addText(&b, statementV1)
	addText(&b, string(s.Purpose))
	b.AddBytes(s.Challenge[:])
	addText(&b, s.Machine)
	b.AddBytes(s.ServiceKey[:])
	addBytes16(&b, s.Recipient)
	b.AddUint8(uint8(min(len(s.Volumes), maxText)))
	for _, v := range s.Volumes {
		addText(&b, v.ID)
		addText(&b, v.UUID)
		b.AddBytes(v.Identity[:])
		b.AddBytes(v.Resume[:])
	}
	b.AddBytes(s.Selection[:])
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(s.Details) })
	out, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encoding a statement: %w", err)
	}
	if len(s.Volumes) > MaxVolumes {
		return nil, fmt.Errorf("encoding a statement: %d volumes, at most %d are allowed", len(s.Volumes), MaxVolumes)
	}
	if len(out) > MaxStatement {
		return nil, fmt.Errorf("encoding a statement: it has %d bytes, at most %d are allowed", len(out), MaxStatement)
	}
	return out, nil
}

// ParseStatement decodes what [Statement.Marshal] encodes. Its error is
// [ErrMalformed].
func ParseStatement(data []byte) (*Statement, error) {
	if len(data) > MaxStatement {
		return nil, fmt.Errorf("%w statement: %d bytes, at most %d are allowed", ErrMalformed, len(data), MaxStatement)
	}
	var s Statement
	in := cryptobyte.String(data)
	if !s.read(&in) || !in.Empty() {
		return nil, fmt.Errorf("%w statement", ErrMalformed)
	}
	switch s.Purpose {
	case PurposeEnroll, PurposeCommit, PurposeBoot, PurposeStage, PurposeKey, PurposeRekey, PurposeRekeyed:
		return &s, nil
	default:
		return nil, fmt.Errorf("%w statement: unknown purpose", ErrMalformed)
	}
}

func (s *Statement) read(in *cryptobyte.String) bool {
	var label, purpose string
	var count uint8
	ok := readText(in, &label) && label == statementV1 &&
		readText(in, &purpose) &&
		in.CopyBytes(s.Challenge[:]) &&
		readText(in, &s.Machine) &&
		in.CopyBytes(s.ServiceKey[:]) &&
		readBytes16(in, &s.Recipient) &&
		in.ReadUint8(&count) && count <= MaxVolumes
	s.Purpose = Purpose(purpose)
	for range count {
		var v Volume
		ok = ok && v.read(in)
		s.Volumes = append(s.Volumes, v)
	}
	var details cryptobyte.String
	ok = ok && in.CopyBytes(s.Selection[:]) && in.ReadUint24LengthPrefixed(&details)
	s.Details = bytes.Clone(details)
	return ok
}

func (v *Volume) read(in *cryptobyte.String) bool {
	return readText(in, &v.ID) && readText(in, &v.UUID) &&
		in.CopyBytes(v.Identity[:]) && in.CopyBytes(v.Resume[:])
}

// digest is SHA-256(label ‖ 0x00 ‖ parts), which is unambiguous only where at
// most the last part has a variable length.
func digest(label string, parts ...[]byte) [32]byte {
	h := sha256.New()
	h.Write([]byte(label))
	h.Write([]byte{0})
	for _, p := range parts {
		h.Write(p)
	}
	return [32]byte(h.Sum(nil))
}

// addText adds at most 255 bytes behind an 8-bit length.
func addText(b *cryptobyte.Builder, text string) {
	b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(text)) })
}

func addBytes16(b *cryptobyte.Builder, data []byte) {
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(data) })
}

func readText(in *cryptobyte.String, text *string) bool {
	var field cryptobyte.String
	if !in.ReadUint8LengthPrefixed(&field) {
		return false
	}
	*text = string(field)
	return true
}

func readBytes16(in *cryptobyte.String, data *[]byte) bool {
	var field cryptobyte.String
	if !in.ReadUint16LengthPrefixed(&field) {
		return false
	}
	*data = bytes.Clone(field)
	return true
}
