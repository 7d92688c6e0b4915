package audit

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

const (
	proofHeader = "c2sp.org/tlog-proof@v1\n"
	proofIndex  = "index "
	// maxProofHashes is the height of the largest tree.
	maxProofHashes = 53
	maxProof       = maxHead + (maxProofHashes+3)*64
)

// Proof shows that an entry stands at an index of the tree of a signed head.
type Proof struct {
	Index  int64
	Hashes []Hash
	Head   []byte // as [Signer.SignHead] returned it, cosignatures included
}

// Prove draws the proof for the entry at index; head is the signed head of t.
func Prove(stored HashReader, head []byte, t Tree, index int64) (Proof, error) {
	if index < 0 || index >= t.N {
		return Proof{}, fmt.Errorf("proving audit entry %d: the head covers %d entries", index, t.N)
	}
	hashes, err := tlog.ProveRecord(t.N, index, stored)
	if err != nil {
		return Proof{}, fmt.Errorf("proving audit entry %d in %d: %w", index, t.N, err)
	}
	return Proof{index, hashes, head}, nil
}

// Marshal returns the proof as a C2SP tlog-proof without extra data.
func (p Proof) Marshal() []byte {
	b := fmt.Appendf(nil, "%s%s%d\n", proofHeader, proofIndex, p.Index)
	for _, h := range p.Hashes {
		b = fmt.Appendf(b, "%s\n", h)
	}
	return append(append(b, '\n'), p.Head...)
}

// ParseProof parses what [Proof.Marshal] returned. It checks the form only.
func ParseProof(b []byte) (Proof, error) {
	p, err := parseProof(b)
	if err != nil {
		return Proof{}, fmt.Errorf("parsing audit proof: %w", err)
	}
	return p, nil
}

func parseProof(b []byte) (Proof, error) {
	body, ok := bytes.CutPrefix(b, []byte(proofHeader))
	if !ok || len(b) > maxProof {
		return Proof{}, fmt.Errorf("want %q first and at most %d bytes", proofHeader, maxProof)
	}
	text, head, ok := bytes.Cut(body, []byte("\n\n"))
	if !ok {
		return Proof{}, errors.New("want a blank line before the head")
	}
	lines := strings.Split(string(text), "\n")
	number, ok := strings.CutPrefix(lines[0], proofIndex)
	if !ok || len(lines)-1 > maxProofHashes {
		return Proof{}, fmt.Errorf("want an index line and at most %d hashes", maxProofHashes)
	}
	index, err := parseSize(number)
	if err != nil {
		return Proof{}, fmt.Errorf("index: %w", err)
	}
	p := Proof{Index: index, Head: head}
	for _, line := range lines[1:] {
		h, err := parseHash(line)
		if err != nil {
			return Proof{}, err
		}
		p.Hashes = append(p.Hashes, h)
	}
	return p, nil
}

// ErrNotProved is returned for a proof that does not lead to the signed root.
var ErrNotProved = errors.New("the proof does not lead to the signed root")

// CheckInclusion verifies the proof's head and that the signed entry, as
// [Signed.Marshal] returned it, stands in its tree. It returns that tree, so
// that the caller can compare it with heads kept elsewhere.
func (v *Verifier) CheckInclusion(signed []byte, p Proof) (Tree, error) {
	t, err := v.OpenHead(p.Head)
	if err != nil {
		return Tree{}, err
	}
	if p.Index < 0 || p.Index >= t.N ||
		tlog.CheckRecord(p.Hashes, t.N, t.Hash, p.Index, tlog.RecordHash(signed)) != nil {
		return Tree{}, fmt.Errorf("checking audit entry %d in a tree of %d: %w", p.Index, t.N, ErrNotProved)
	}
	return t, nil
}

// ProveConsistency draws the proof that the tree of size newer extends that of
// size older; it is empty where older is 0 or equal to newer.
func ProveConsistency(stored HashReader, older, newer int64) ([]Hash, error) {
	if older < 0 || older > newer {
		return nil, fmt.Errorf("proving audit tree %d from %d: want the older, smaller size first", newer, older)
	}
	if older == 0 {
		return nil, nil
	}
	proof, err := tlog.ProveTree(newer, older, stored)
	if err != nil {
		return nil, fmt.Errorf("proving audit tree %d from %d: %w", newer, older, err)
	}
	return proof, nil
}

// CheckConsistency verifies that the newer tree extends the older one, both
// taken from verified heads.
func CheckConsistency(older, newer Tree, proof []Hash) error {
	failed := fmt.Errorf("checking audit tree %d from %d: %w", newer.N, older.N, ErrNotProved)
	switch {
	case older.N < 0 || older.N > newer.N || newer.N > maxSize:
		return failed
	case older.N == 0:
		if older != EmptyTree() || len(proof) > 0 {
			return failed
		}
		return nil
	}
	if tlog.CheckTree(proof, newer.N, newer.Hash, older.N, older.Hash) != nil {
		return failed
	}
	return nil
}
