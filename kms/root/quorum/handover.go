package quorum

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"filippo.io/age"

	"keywright.dev/kms/secret"
)

const (
	fingerprintLabel = "keywright/quorum-recipient/v1\x00"
	fingerprintSize  = 10
)

// Given is a share as somebody gave it, decrypted.
type Given struct {
	From string // for people: the file and what it says of itself
	Data secret.Bytes
}

// Fault says of a share that was given why it is of no use.
type Fault struct {
	From      string
	Custodian string // empty where it cannot be told
	Err       error
}

func (f Fault) Error() string {
	if f.Custodian == "" {
		return fmt.Sprintf("%s: %v", f.From, f.Err)
	}
	return fmt.Sprintf("%s, of %s: %v", f.From, f.Custodian, f.Err)
}

func (f Fault) Unwrap() error { return f.Err }

// OpenShares decrypts the shares in the text of a file, which from names. A share that
// does not decrypt is a fault and hinders no other.
func OpenShares(from, text string, identities ...age.Identity) ([]Given, []Fault, error) {
	blocks, err := readBlocks(text)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the shares in %s: %w", from, err)
	}
	var given []Given
	var faults []Fault
	for _, b := range blocks {
		where := from + ": " + b.name
		data, err := decrypt(b.sealed, maxShare, identities...)
		if err != nil {
			faults = append(faults, Fault{From: where, Err: err})
			continue
		}
		given = append(given, Given{where, data})
	}
	return given, faults, nil
}

// HandOver is what a custodian does: it encrypts the shares that they opened to
// the recipient of whoever combines, each checked first. The text is another
// file of shares.
func HandOver(to string, opened []Given) (string, []Fault, error) {
	recipient, to, err := parseRecipient(to)
	if err != nil {
		return "", nil, fmt.Errorf("handing over shares: %w", err)
	}
	head := []string{"Keywright: recovery shares, handed over to the recipient " + fingerprint(to)}
	var blocks []block
	var faults []Fault
	for _, g := range opened {
		b, fault := handOver(recipient, g)
		if fault != nil {
			faults = append(faults, *fault)
			continue
		}
		blocks = append(blocks, b)
	}
	if len(blocks) == 0 {
		return "", faults, errors.New("handing over shares: none of them is whole")
	}
	text, err := writeBlocks(head, blocks)
	if err != nil {
		return "", faults, fmt.Errorf("handing over shares: %w", err)
	}
	return text, faults, nil
}

func handOver(to age.Recipient, g Given) (block, *Fault) {
	s, err := parseShare(g.Data)
	if err != nil {
		return block{}, newFault(g, s, err)
	}
	defer s.value.Wipe()
	sealed, err := encrypt(g.Data, to)
	if err != nil {
		return block{}, newFault(g, s, err)
	}
	return block{fmt.Sprintf("%s, %s", s.custodian(), s.set.Subject()), sealed}, nil
}

func newFault(g Given, s share, err error) *Fault {
	f := Fault{From: g.From, Err: err}
	if s.number > 0 {
		f.Custodian = s.custodian()
	}
	return &f
}

// Fingerprint is what people compare aloud before shares are handed over to a
// recipient: 80 bits of its digest, in groups of four hex digits.
func Fingerprint(recipient string) (string, error) {
	_, text, err := parseRecipient(recipient)
	if err != nil {
		return "", err
	}
	return fingerprint(text), nil
}

func fingerprint(recipient string) string {
	sum := sha256.Sum256([]byte(fingerprintLabel + recipient))
	var groups []string
	for pair := range slices.Chunk(sum[:fingerprintSize], 2) {
		groups = append(groups, hex.EncodeToString(pair))
	}
	return strings.Join(groups, " ")
}

// Session is the side that combines: custodians encrypt their shares to its
// recipient, whose identity never leaves the process.
type Session struct {
	identity *age.HybridIdentity
	given    []Given
}

// NewSession makes an identity that is post-quantum, whatever the custodians'
// are.
func NewSession() (*Session, error) {
	identity, err := age.GenerateHybridIdentity()
	if err != nil {
		return nil, fmt.Errorf("making a recipient for shares: %w", err)
	}
	return &Session{identity: identity}, nil
}

// Recipient is what custodians hand over to.
func (s *Session) Recipient() string { return s.identity.Recipient().String() }

// Receive takes a text that a custodian handed over, which from names. It
// returns how many shares it took.
func (s *Session) Receive(from, text string) (int, []Fault, error) {
	given, faults, err := OpenShares(from, text, s.identity)
	s.given = append(s.given, given...)
	return len(given), faults, err
}

// Given returns the shares received so far, which stay the session's.
func (s *Session) Given() []Given { return s.given }

// Wipe wipes the shares and forgets the identity; nothing is received after it.
func (s *Session) Wipe() {
	for _, g := range s.given {
		g.Data.Wipe()
	}
	s.given, s.identity = nil, nil
}
