package claims

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
)

// Kind tells what a set is about.
type Kind string

// The kinds of set.
const (
	// Measurement is what a group of machines has in common: approved once for
	// the group. It holds everything that attestation could not explain.
	Measurement Kind = "measurement"
	// Platform is what names one machine: approved for that machine.
	Platform Kind = "platform"
	// State changes at every boot or second and is never approved.
	State Kind = "state"
	// Files is what follows from the files of a boot alone; [Successor] lays
	// it over a measurement.
	Files Kind = "files"
)

const (
	// MaxClaims bounds a set.
	MaxClaims = 8192
	// MaxBytes bounds the canonical form.
	MaxBytes = 1 << 20

	header = "keywright claims v1 "
)

// ErrMalformed is returned by [Parse] for bytes that are not the canonical
// form of a set.
var ErrMalformed = errors.New("malformed claims")

// Set is an immutable, ordered list of claims of one kind. A name may occur
// several times, as for the boot applications of one boot. The zero value is
// no set: it has no kind, no claims and no digest that could be approved.
type Set struct {
	kind   Kind
	claims []Claim
	digest [sha256.Size]byte
}

// New makes a set of the given claims in the given order, which it copies.
func New(kind Kind, list []Claim) (Set, error) {
	if !kind.valid() {
		return Set{}, fmt.Errorf("kind of claims %.32q is unknown", string(kind))
	}
	if len(list) > MaxClaims {
		return Set{}, fmt.Errorf("%d claims, at most %d are allowed", len(list), MaxClaims)
	}
	for _, c := range list {
		if err := c.check(); err != nil {
			return Set{}, err
		}
	}
	s := Set{kind: kind, claims: slices.Clone(list)}
	canonical := s.Marshal()
	if len(canonical) > MaxBytes {
		return Set{}, fmt.Errorf("claims take %d bytes, at most %d are allowed", len(canonical), MaxBytes)
	}
	s.digest = sha256.Sum256(canonical)
	return s, nil
}

func (k Kind) valid() bool {
	return k == Measurement || k == Platform || k == State || k == Files
}

// Parse reads the canonical form. Its error is [ErrMalformed].
func Parse(data []byte) (Set, error) {
	if len(data) > MaxBytes {
		return Set{}, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrMalformed, len(data), MaxBytes)
	}
	first, rest, _ := strings.Cut(string(data), "\n")
	kind, ok := strings.CutPrefix(first, header)
	if !ok {
		return Set{}, fmt.Errorf("%w: they do not begin with %q", ErrMalformed, header)
	}
	list, err := parseLines(rest)
	if err != nil {
		return Set{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	s, err := New(Kind(kind), list)
	if err != nil {
		return Set{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if !bytes.Equal(s.Marshal(), data) {
		return Set{}, fmt.Errorf("%w: not in canonical form", ErrMalformed)
	}
	return s, nil
}

func parseLines(text string) ([]Claim, error) {
	var list []Claim
	for text != "" {
		line, rest, _ := strings.Cut(text, "\n")
		name, value, ok := strings.Cut(line, " ")
		if !ok {
			return nil, fmt.Errorf("line %d has no value", len(list)+2)
		}
		if len(list) == MaxClaims {
			return nil, fmt.Errorf("more than %d claims", MaxClaims)
		}
		list = append(list, Claim{name, value})
		text = rest
	}
	return list, nil
}

// Marshal returns the canonical form: a header line with version and kind,
// then one line "name value" for each claim, each ended by a line feed.
func (s Set) Marshal() []byte {
	n := len(header) + len(s.kind) + 1
	for _, c := range s.claims {
		n += len(c.Name) + len(c.Value) + 2
	}
	b := make([]byte, 0, n)
	b = append(append(append(b, header...), s.kind...), '\n')
	for _, c := range s.claims {
		b = append(append(b, c.Name...), ' ')
		b = append(append(b, c.Value...), '\n')
	}
	return b
}

// Digest returns the SHA-256 of the canonical form. Of a set of kind
// [Measurement] it is "the measurement" that people approve; of the zero set
// it is zero.
func (s Set) Digest() [sha256.Size]byte { return s.digest }

// Equal tells whether kind, claims and order are the same.
func (s Set) Equal(other Set) bool { return s.digest == other.digest }

// Kind returns the set's kind, empty for the zero set.
func (s Set) Kind() Kind { return s.kind }

// Len returns the number of claims.
func (s Set) Len() int { return len(s.claims) }

// All yields the claims in order.
func (s Set) All() iter.Seq[Claim] { return slices.Values(s.claims) }

// Values returns the values of the claims of that name, in order.
func (s Set) Values(name string) []string {
	var values []string
	for _, c := range s.claims {
		if c.Name == name {
			values = append(values, c.Value)
		}
	}
	return values
}

// One returns the value of the only claim of that name; false when there is
// none or more than one.
func (s Set) One(name string) (string, bool) {
	values := s.Values(name)
	if len(values) != 1 {
		return "", false
	}
	return values[0], true
}

// Has tells whether a claim of that name exists.
func (s Set) Has(name string) bool {
	return slices.ContainsFunc(s.claims, func(c Claim) bool { return c.Name == name })
}
