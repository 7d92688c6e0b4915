package audit_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keywright.dev/kms/audit"
)

const origin = "audit.example.com/keywright"

// newSigner returns a signer whose key is made of one repeated byte, as the
// vectors of docs/formats/audit.md have it.
func newSigner(tb testing.TB, seed byte) *audit.Signer {
	tb.Helper()
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	s, err := audit.NewSigner(origin, key)
	require.NoError(tb, err)
	return s
}

// entryN returns a valid entry that differs from every other n's.
func entryN(n int) audit.Entry {
	var id audit.ID
	binary.BigEndian.PutUint64(id[:], uint64(n)+1)
	return audit.Entry{
		ID:     id,
		Time:   time.Date(2026, 3, 14, 9, 26, 53, 589_000_000, time.UTC).Add(time.Duration(n) * time.Second),
		Actor:  audit.Actor{Kind: audit.ActorMachine, ID: "7f3a0c5e"},
		Action: "boot.refuse", Object: "machine/web-17",
		Outcome: audit.Refused, Code: "measurement_unknown",
		Policies: []string{"release-approved-boot"},
		Facts:    []audit.Fact{{Name: "boot.cmdline", Was: "root=/dev/vda quiet", Is: "root=/dev/vda init=/bin/sh"}},
		Request:  fmt.Sprintf("req-%d", n), Release: "",
		Count: 1,
	}
}

// stored is a HashReader over memory.
type stored []audit.Hash

func (s stored) ReadHashes(indexes []int64) ([]audit.Hash, error) {
	hashes := make([]audit.Hash, len(indexes))
	for i, index := range indexes {
		if index >= int64(len(s)) {
			return nil, fmt.Errorf("no hash %d", index)
		}
		hashes[i] = s[index]
	}
	return hashes, nil
}

// testLog is what a store would hold.
type testLog struct {
	tb      testing.TB
	signer  *audit.Signer
	entries [][]byte
	leaves  []audit.Hash
	stored  stored
	trees   []audit.Tree
	heads   map[int64][]byte // by size
}

// newLog appends batches of the given sizes, with a head after each.
func newLog(tb testing.TB, batches ...int) *testLog {
	tb.Helper()
	l := &testLog{tb: tb, signer: newSigner(tb, 1), heads: map[int64][]byte{}}
	l.trees = []audit.Tree{audit.EmptyTree()}
	for _, n := range batches {
		l.append(n)
	}
	return l
}

func (l *testLog) tree() audit.Tree { return l.trees[len(l.trees)-1] }

func (l *testLog) append(n int) {
	l.tb.Helper()
	first := len(l.entries)
	for range n {
		signed, err := l.signer.Sign(entryN(len(l.entries)))
		require.NoError(l.tb, err)
		l.entries = append(l.entries, signed.Marshal())
		l.leaves = append(l.leaves, signed.Leaf())
	}
	added, err := audit.Append(l.stored, l.tree(), l.leaves[first:])
	require.NoError(l.tb, err)
	require.Equal(l.tb, int64(len(l.stored)), added.Start)
	l.stored = append(l.stored, added.Hashes...)
	l.trees = append(l.trees, added.Tree)
	l.heads[added.Tree.N] = l.sign(added.Tree)
}

func (l *testLog) sign(t audit.Tree) []byte {
	l.tb.Helper()
	head, err := l.signer.SignHead(t)
	require.NoError(l.tb, err)
	return head
}

// lines returns the export, one element a line, newlines kept.
func (l *testLog) lines() [][]byte {
	l.tb.Helper()
	var out bytes.Buffer
	x, err := audit.NewExporter(&out, l.signer.Verifier())
	require.NoError(l.tb, err)
	for i, signed := range l.entries {
		require.NoError(l.tb, x.Entry(signed, l.leaves[i]))
		if head, ok := l.heads[int64(i+1)]; ok {
			require.NoError(l.tb, x.Head(head))
		}
	}
	lines := bytes.SplitAfter(out.Bytes(), []byte("\n"))
	return lines[:len(lines)-1]
}

func (l *testLog) export() []byte { return bytes.Join(l.lines(), nil) }
