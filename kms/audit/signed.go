package audit

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// entryLabel separates signatures of entries from those of heads: a head is a
// signed note, which can hold no NUL.
const entryLabel = "keywright/audit-entry/v1\x00"

// Frame of a signed entry. What follows the entry has a fixed length.
const (
	signedStart     = `{"entry":`
	signedKey       = `,"key":"`
	signedSignature = `","signature":"`
	signedEnd       = `"}`

	keyDigits       = 8
	signatureDigits = 86 // base64url of 64 bytes, without padding
	signedTail      = len(signedKey) + keyDigits + len(signedSignature) + signatureDigits + len(signedEnd)
	signedFrame     = len(signedStart) + signedTail
)

// Signer signs entries and heads of one log with its Ed25519 key.
type Signer struct {
	verifier *Verifier
	// A func, so that printing a Signer can't print the key.
	sign func(message []byte) ([]byte, error)
}

// NewSigner returns the signer of the log named origin. The key is an Ed25519
// one, such as an [ed25519.PrivateKey]; the caller keeps and wipes it.
//
// The origin should be a URL without scheme (C2SP tlog-checkpoint) that no
// other log has; spaces and "+" are refused.
func NewSigner(origin string, key crypto.Signer) (*Signer, error) {
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("opening audit log key: %T, want an Ed25519 key", key.Public())
	}
	verifier, err := NewVerifier(origin, public)
	if err != nil {
		return nil, err
	}
	return &Signer{verifier, func(message []byte) ([]byte, error) {
		return key.Sign(nil, message, crypto.Hash(0))
	}}, nil
}

// Verifier returns the verifier of what the signer signs.
func (s *Signer) Verifier() *Verifier { return s.verifier }

// Sign encodes and signs the entry.
func (s *Signer) Sign(e Entry) (Signed, error) {
	encoded, err := e.Marshal()
	if err != nil {
		return Signed{}, err
	}
	signature, err := s.sign(entryMessage(encoded))
	if err != nil {
		return Signed{}, fmt.Errorf("signing audit entry: %w", err)
	}
	return Signed{encoded, s.verifier.key.KeyHash(), signature}, nil
}

func entryMessage(encoded []byte) []byte {
	return append([]byte(entryLabel), encoded...)
}

// Signed is an encoded entry with its signature. Its [Signed.Marshal] form is
// what the store keeps, what a client is given, and the leaf of the tree.
type Signed struct {
	Entry     []byte // as [Entry.Marshal] returned it
	Key       uint32 // C2SP signed-note key id of the log key
	Signature []byte // Ed25519, 64 bytes, over entryLabel ‖ Entry
}

// Marshal returns {"entry":…,"key":"…","signature":"…"}: the entry's bytes
// as they were signed, the key id in hex, the signature in base64url.
func (s Signed) Marshal() []byte {
	b := make([]byte, 0, signedFrame+len(s.Entry))
	b = append(append(b, signedStart...), s.Entry...)
	b = fmt.Appendf(append(b, signedKey...), "%08x", s.Key)
	b = append(b, signedSignature...)
	b = base64.RawURLEncoding.AppendEncode(b, s.Signature)
	return append(b, signedEnd...)
}

// Leaf returns the entry's leaf hash (RFC 6962 section 2.1).
func (s Signed) Leaf() Hash { return tlog.RecordHash(s.Marshal()) }

// ParseSigned takes apart what [Signed.Marshal] returned. It checks the frame;
// the entry inside and the signature are for [Verifier.Verify] to check.
func ParseSigned(b []byte) (Signed, error) {
	body, okStart := bytes.CutPrefix(b, []byte(signedStart))
	if !okStart || len(body) < signedTail || len(body) > MaxEntry+signedTail {
		return Signed{}, errors.New("parsing signed audit entry: wrong frame or length")
	}
	s := Signed{Entry: body[:len(body)-signedTail]}
	key, text := signedFields(body[len(s.Entry):])
	id, errKey := strconv.ParseUint(key, 16, 32)
	signature, errSignature := base64.RawURLEncoding.Strict().DecodeString(text)
	s.Key, s.Signature = uint32(id), signature
	if errors.Join(errKey, errSignature) != nil || !bytes.Equal(s.Marshal(), b) {
		return Signed{}, errors.New("parsing signed audit entry: wrong key id, signature or frame")
	}
	return s, nil
}

func signedFields(tail []byte) (key, signature string) {
	start := len(signedKey)
	key = string(tail[start : start+keyDigits])
	start += keyDigits + len(signedSignature)
	return key, string(tail[start : start+signatureDigits])
}

// ErrSignature is returned for a signature that does not verify: the bytes were
// changed or another key signed them.
var ErrSignature = errors.New("the signature does not verify")

// Verifier verifies entries and heads of one log. It is safe for concurrent use.
type Verifier struct {
	key  note.Verifier
	text string
}

// NewVerifier returns the verifier for the log named origin and its key.
func NewVerifier(origin string, key ed25519.PublicKey) (*Verifier, error) {
	if len(key) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("opening audit log key: %d bytes, want %d", len(key), ed25519.PublicKeySize)
	}
	text, err := note.NewEd25519VerifierKey(origin, key)
	if err != nil || !isName(origin) {
		return nil, fmt.Errorf("opening audit log key: origin %q: want 1 to %d printable bytes without spaces and +",
			origin, MaxName)
	}
	return ParseVerifier(text)
}

// ParseVerifier parses a verifier key as [Verifier.String] prints it.
func ParseVerifier(text string) (*Verifier, error) {
	key, err := note.NewVerifier(text)
	if err != nil || !isName(key.Name()) {
		return nil, errors.New("parsing audit log key: want the log's verifier key: origin+id+base64")
	}
	return &Verifier{key, text}, nil
}

// String returns the C2SP signed-note verifier key, origin+id+base64, which is
// what an auditor keeps.
func (v *Verifier) String() string { return v.text }

// Origin returns the log's name.
func (v *Verifier) Origin() string { return v.key.Name() }

// Verify parses what [Signed.Marshal] returned, checks the signature over the
// entry and returns it. Wrong signatures and keys are [ErrSignature].
func (v *Verifier) Verify(signed []byte) (Entry, error) {
	s, err := ParseSigned(signed)
	if err != nil {
		return Entry{}, err
	}
	if s.Key != v.key.KeyHash() {
		return Entry{}, fmt.Errorf("verifying audit entry: signed by key %08x, the log's is %08x: %w",
			s.Key, v.key.KeyHash(), ErrSignature)
	}
	if !v.key.Verify(entryMessage(s.Entry), s.Signature) {
		return Entry{}, fmt.Errorf("verifying audit entry: %w", ErrSignature)
	}
	return ParseEntry(s.Entry)
}
