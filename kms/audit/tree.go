package audit

import (
	"errors"
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// Names of the tree's parts; their arithmetic is RFC 6962's, their storage
// order that of package tlog: see [tlog.StoredHashIndex].
type (
	// Hash is a SHA-256 hash of a leaf or an inner node.
	Hash = tlog.Hash
	// Tree is a tree's size N and root Hash.
	Tree = tlog.Tree
	// HashReader reads stored hashes by storage index, for example from rows.
	HashReader = tlog.HashReader
)

// maxSize bounds tree sizes and indexes: every JSON reader holds them exactly.
const maxSize = 1<<53 - 1

// ErrTreeChanged is returned when stored hashes no longer yield the root that
// was signed: somebody wrote to the tree. No head may be signed over it.
var ErrTreeChanged = errors.New("the stored tree is not the one that was signed")

// EmptyTree returns the tree that every log starts from.
func EmptyTree() Tree {
	// Size 0 reads nothing and has a fixed root, so it can't fail.
	root, _ := tlog.TreeHash(0, nil)
	return Tree{N: 0, Hash: root}
}

// Appended is what [Append] yields.
type Appended struct {
	// Start is the storage index of the first of Hashes; the others follow it.
	Start  int64
	Hashes []Hash
	// Tree is the tree with the leaves appended.
	Tree Tree
}

// Append computes what must be stored to append leaves to the tree from. It
// reads stored once, at most 53 hashes, and refuses with [ErrTreeChanged] if
// they do not yield from's root: with from taken from the last signed head,
// the log never signs a rewritten past.
func Append(stored HashReader, from Tree, leaves []Hash) (Appended, error) {
	f, err := openFrontier(stored, from)
	if err != nil {
		return Appended{}, err
	}
	out := Appended{Start: tlog.StoredHashCount(from.N)}
	for _, leaf := range leaves {
		added, err := f.add(leaf)
		if err != nil {
			return Appended{}, err
		}
		out.Hashes = append(out.Hashes, added...)
	}
	out.Tree, err = f.tree()
	return out, err
}

// frontier is a tree of which only the roots of the complete subtrees are kept,
// by storage index: enough to append and to compute the root, in memory that
// grows with the logarithm of the size. It is its own [HashReader].
type frontier struct {
	size  int64
	peaks map[int64]Hash
}

func newFrontier() *frontier {
	return &frontier{peaks: make(map[int64]Hash)}
}

func openFrontier(stored HashReader, from Tree) (*frontier, error) {
	f := &frontier{size: from.N, peaks: make(map[int64]Hash)}
	if indexes := peakIndexes(from.N); len(indexes) > 0 {
		hashes, err := stored.ReadHashes(indexes)
		if err != nil {
			return nil, fmt.Errorf("reading the audit tree at size %d: %w", from.N, err)
		}
		if len(hashes) != len(indexes) {
			return nil, fmt.Errorf("reading the audit tree at size %d: %d hashes, want %d",
				from.N, len(hashes), len(indexes))
		}
		for i, index := range indexes {
			f.peaks[index] = hashes[i]
		}
	}
	if got, err := f.tree(); err != nil || got != from {
		return nil, fmt.Errorf("reading the audit tree at size %d: %w", from.N, ErrTreeChanged)
	}
	return f, nil
}

// peakIndexes returns the storage indexes of the roots of the complete subtrees
// of a tree of size n, in rising order.
func peakIndexes(n int64) []int64 {
	var indexes []int64
	for level := bits.Len64(uint64(n)) - 1; level >= 0; level-- {
		if n>>level&1 == 1 {
			indexes = append(indexes, tlog.StoredHashIndex(level, n>>level-1))
		}
	}
	return indexes
}

// ReadHashes implements [HashReader] over the peaks.
func (f *frontier) ReadHashes(indexes []int64) ([]Hash, error) {
	hashes := make([]Hash, len(indexes))
	for i, index := range indexes {
		h, ok := f.peaks[index]
		if !ok {
			return nil, fmt.Errorf("reading audit tree hash %d: not a peak at size %d", index, f.size)
		}
		hashes[i] = h
	}
	return hashes, nil
}

// add appends a leaf and returns the hashes to store for it.
func (f *frontier) add(leaf Hash) ([]Hash, error) {
	added, err := tlog.StoredHashesForRecordHash(f.size, leaf, f)
	if err != nil {
		return nil, fmt.Errorf("appending audit entry %d: %w", f.size, err)
	}
	top := len(added) - 1
	for level := range top {
		delete(f.peaks, tlog.StoredHashIndex(level, f.size>>level-1))
	}
	f.peaks[tlog.StoredHashIndex(top, f.size>>top)] = added[top]
	f.size++
	return added, nil
}

func (f *frontier) tree() (Tree, error) {
	root, err := tlog.TreeHash(f.size, f)
	if err != nil {
		return Tree{}, fmt.Errorf("computing the audit tree's root at size %d: %w", f.size, err)
	}
	return Tree{N: f.size, Hash: root}, nil
}
