package quorum

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/crypto/cryptobyte"
)

const (
	setLabel        = "keywright/quorum-set/v1"
	commitmentLabel = "keywright/quorum-commitment/v1\x00"
	digestLabel     = "keywright/quorum-digest/v1\x00"
	// maxSet is more than the largest set that keeps the bounds.
	maxSet = 2 << 10
)

type digest = [sha256.Size]byte

// Set is what is public about the shares of one key. Every share and every
// wrapper carries it whole.
type Set struct {
	Quorum     string // the root's URI
	Context    []byte // what the key is bound to
	Threshold  int
	Custodians []string // whose the shares are, share 1 first

	commitment digest   // to what was split
	digests    []digest // of the shares
	encoded    []byte
}

// ID names the set, by 16 hex digits of a digest of all of it.
func (s Set) ID() string {
	id := sha256.Sum256(s.encoded)
	return hex.EncodeToString(id[:8])
}

// Subject shows the context to people, on one line.
func (s Set) Subject() string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(string(s.Context), "?"))
}

// String names the set for errors; no part of it is secret.
func (s Set) String() string { return fmt.Sprintf("set %s of %q", s.ID(), s.Subject()) }

func (s Set) equal(other Set) bool { return bytes.Equal(s.encoded, other.encoded) }

// names returns the custodians of these shares, in their order.
func (s Set) names(numbers []int) []string {
	names := []string{}
	for _, n := range slices.Sorted(slices.Values(numbers)) {
		names = append(names, s.Custodians[n-1])
	}
	return names
}

// encode fills in s.encoded.
func (s *Set) encode() error {
	var b cryptobyte.Builder
	addField(&b, []byte(setLabel))
	addField(&b, []byte(s.Quorum))
	addField(&b, s.Context)
	b.AddBytes(s.commitment[:])
	b.AddUint8(uint8(s.Threshold))
	b.AddUint8(uint8(len(s.Custodians)))
	for i, name := range s.Custodians {
		addField(&b, []byte(name))
		b.AddBytes(s.digests[i][:])
	}
	var err error
	s.encoded, err = b.Bytes()
	return err
}

func addField(b *cryptobyte.Builder, value []byte) {
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(value) })
}

// parseSet takes exactly what encode writes, and keeps no part of data.
func parseSet(data []byte) (Set, error) {
	if len(data) > maxSet {
		return Set{}, ErrMalformed
	}
	s := Set{encoded: bytes.Clone(data)}
	in := cryptobyte.String(s.encoded)
	var label, quorum, context cryptobyte.String
	var threshold, count uint8
	if !in.ReadUint16LengthPrefixed(&label) || string(label) != setLabel ||
		!in.ReadUint16LengthPrefixed(&quorum) || !in.ReadUint16LengthPrefixed(&context) || len(context) > MaxContext ||
		!in.CopyBytes(s.commitment[:]) || !in.ReadUint8(&threshold) || !in.ReadUint8(&count) || count > MaxCustodians {
		return Set{}, ErrMalformed
	}
	s.Quorum, s.Context, s.Threshold = string(quorum), context, int(threshold)
	for range count {
		var name cryptobyte.String
		var of digest
		if !in.ReadUint16LengthPrefixed(&name) || !in.CopyBytes(of[:]) {
			return Set{}, ErrMalformed
		}
		s.Custodians, s.digests = append(s.Custodians, string(name)), append(s.digests, of)
	}
	if !in.Empty() || s.check() != nil {
		return Set{}, ErrMalformed
	}
	return s, nil
}

// check holds a set to what Wrap makes.
func (s Set) check() error {
	name, ok := strings.CutPrefix(s.Quorum, Scheme+":")
	if !ok || len(name) != 2*nameSize || strings.Trim(name, "0123456789abcdef") != "" {
		return errors.New("the quorum has no name")
	}
	if len(s.Context) > MaxContext {
		return fmt.Errorf("the context has %d bytes: want at most %d", len(s.Context), MaxContext)
	}
	if err := checkThreshold(s.Threshold, len(s.Custodians)); err != nil {
		return err
	}
	for i, name := range s.Custodians {
		if slices.Contains(s.Custodians[:i], name) {
			return fmt.Errorf("two custodians are named %q", name)
		}
		if err := checkLabel(name); err != nil {
			return err
		}
	}
	return nil
}

// digestOf is what a set holds of each share. A share is as good as random, so
// that its digest tells nothing of it.
func digestOf(number int, value []byte) digest {
	h := sha256.New()
	h.Write([]byte(digestLabel))
	h.Write([]byte{byte(number)})
	h.Write(value)
	return digest(h.Sum(nil))
}

func commitmentTo(payload []byte) digest {
	h := sha256.New()
	h.Write([]byte(commitmentLabel))
	h.Write(payload)
	return digest(h.Sum(nil))
}
