package storetest

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/audit"
)

// writeEntries appends entries from n to before m, one transaction each.
func writeEntries(t testing.TB, s Store, n, m int) {
	t.Helper()
	for ; n < m; n++ {
		put(t, s, kms.Outcome{Entries: []kms.LogEntry{NewEntry(t, NewSigner(t), MachineID(n), actionRelease, n)}})
	}
}

// requireTree demands that the head's tree holds size entries, in order, and
// that its hashes yield the signed root.
func requireTree(t testing.TB, s Store, size int64) {
	t.Helper()
	head, n, err := s.Head(context.Background())
	require.NoError(t, err)
	require.Equal(t, size, n)
	tree, err := NewSigner(t).Verifier().OpenHead(head)
	require.NoError(t, err)
	require.Equal(t, size, tree.N)
	_, err = audit.Append(s.TreeHashes(context.Background()), tree, nil)
	require.NoError(t, err, "the stored hashes yield the signed root")
	require.NoError(t, s.SequencedEntries(context.Background(), 0, size, func(i int64, signed []byte, leaf audit.Hash) error {
		want := NewEntry(t, NewSigner(t), "", actionRelease, int(i)).Signed
		require.Equal(t, string(want.Marshal()), string(signed), "entry %d", i)
		require.Equal(t, want.Leaf(), leaf)
		return nil
	}))
}

// RequireLog sequences what waits and computes the tree anew from its entries.
func RequireLog(t testing.TB, s Store, signer *audit.Signer) {
	t.Helper()
	ctx := context.Background()
	for n := 1; n > 0; {
		var err error
		n, err = s.Sequence(ctx, 1000, Extend(signer))
		require.NoError(t, err)
	}
	head, size, err := s.Head(ctx)
	require.NoError(t, err)
	if size == 0 {
		require.Empty(t, head)
		return
	}
	tree, err := signer.Verifier().OpenHead(head)
	require.NoError(t, err)
	var leaves []audit.Hash
	require.NoError(t, s.SequencedEntries(ctx, 0, size, func(_ int64, signed []byte, leaf audit.Hash) error {
		entry, err := audit.ParseSigned(signed)
		require.NoError(t, err)
		require.Equal(t, entry.Leaf(), leaf)
		leaves = append(leaves, leaf)
		return nil
	}))
	again, err := audit.Append(nil, audit.EmptyTree(), leaves)
	require.NoError(t, err)
	require.Equal(t, tree, again.Tree)
}

func testSequenceNothing(t *testing.T, s Store) {
	n, err := s.Sequence(context.Background(), 10, func([]byte, audit.HashReader, []audit.Hash) (kms.Sequenced, error) {
		assert.Fail(t, "build was called")
		return kms.Sequenced{}, nil
	})
	require.NoError(t, err)
	assert.Zero(t, n)
	head, size, err := s.Head(context.Background())
	require.NoError(t, err)
	assert.Empty(t, head)
	assert.Zero(t, size)
}

// Entries go into the tree in the order of their insertion, each once.
func testSequence(t *testing.T, s Store) {
	writeEntries(t, s, 0, 10)
	for _, want := range []int{4, 4, 2, 0} {
		n, err := s.Sequence(context.Background(), 4, Extend(NewSigner(t)))
		require.NoError(t, err)
		require.Equal(t, want, n)
	}
	requireTree(t, s, 10)
	writeEntries(t, s, 10, 11)
	n, err := s.Sequence(context.Background(), 100, Extend(NewSigner(t)))
	require.NoError(t, err)
	assert.Equal(t, 1, n)
	requireTree(t, s, 11)
}

func testSequenceFails(t *testing.T, s Store) {
	writeEntries(t, s, 0, 3)
	_, err := s.Sequence(context.Background(), 2, Extend(NewSigner(t)))
	require.NoError(t, err)
	failure := errors.New("build's own")
	_, err = s.Sequence(context.Background(), 2, func([]byte, audit.HashReader, []audit.Hash) (kms.Sequenced, error) {
		return kms.Sequenced{}, failure
	})
	require.ErrorIs(t, err, failure)
	requireTree(t, s, 2)
	n, err := s.Sequence(context.Background(), 2, Extend(NewSigner(t)))
	require.NoError(t, err)
	assert.Equal(t, 1, n, "the entry still waits")
}

// What was built of other leaves is not stored.
func testSequenceRefusesMisfit(t *testing.T, s Store) {
	writeEntries(t, s, 0, 3)
	extend := Extend(NewSigner(t))
	for name, spoil := range map[string]func(*kms.Sequenced){
		"no head":   func(q *kms.Sequenced) { q.Head = nil },
		"start":     func(q *kms.Sequenced) { q.Appended.Start++ },
		"hashes":    func(q *kms.Sequenced) { q.Appended.Hashes = q.Appended.Hashes[1:] },
		"tree size": func(q *kms.Sequenced) { q.Appended.Tree.N++ },
	} {
		_, err := s.Sequence(context.Background(), 3, func(head []byte, h audit.HashReader, leaves []audit.Hash) (kms.Sequenced, error) {
			built, err := extend(head, h, leaves)
			spoil(&built)
			return built, err
		})
		assert.Error(t, err, name)
	}
	_, size, err := s.Head(context.Background())
	require.NoError(t, err)
	assert.Zero(t, size)
}

// Many who sequence at once, beside many who append, take each entry once.
func testSequenceRace(t *testing.T, s Store) {
	signer := NewSigner(t)
	var taken atomic.Int64
	together(func(n int) {
		assert.NoError(t, s.Transact(context.Background(), kms.Key{}, decideTo(kms.Outcome{
			Entries: []kms.LogEntry{NewEntry(t, signer, "", actionRelease, n)},
		})))
		k, err := s.Sequence(context.Background(), 3, Extend(signer))
		assert.NoError(t, err)
		taken.Add(int64(k))
	})
	for {
		k, err := s.Sequence(context.Background(), 100, Extend(signer))
		require.NoError(t, err)
		if taken.Add(int64(k)); k == 0 {
			break
		}
	}
	assert.Equal(t, int64(callers), taken.Load())
	head, size, err := s.Head(context.Background())
	require.NoError(t, err)
	require.Equal(t, int64(callers), size)
	tree, err := signer.Verifier().OpenHead(head)
	require.NoError(t, err)
	_, err = audit.Append(s.TreeHashes(context.Background()), tree, nil)
	assert.NoError(t, err)
}

func testSequencedEntries(t *testing.T, s Store) {
	const entries, sequenced = 300, 280 // more than a store may read at once
	batch := kms.Outcome{}
	for n := range entries {
		batch.Entries = append(batch.Entries, NewEntry(t, NewSigner(t), MachineID(n%3), actionRelease, n))
	}
	put(t, s, batch)
	_, err := s.Sequence(context.Background(), sequenced, Extend(NewSigner(t)))
	require.NoError(t, err)
	requireTree(t, s, sequenced)

	var got []int64
	each := func(i int64, _ []byte, _ audit.Hash) error {
		got = append(got, i)
		return nil
	}
	require.NoError(t, s.SequencedEntries(context.Background(), 7, 10, each))
	assert.Equal(t, []int64{7, 8, 9}, got)
	require.NoError(t, s.SequencedEntries(context.Background(), 5, 5, each))
	assert.Len(t, got, 3)
	assert.Error(t, s.SequencedEntries(context.Background(), 0, sequenced+1, each), "beyond the tree")
	assert.Error(t, s.SequencedEntries(context.Background(), -1, 2, each))
	stop := errors.New("stop")
	assert.ErrorIs(t, s.SequencedEntries(context.Background(), 0, 10, func(int64, []byte, audit.Hash) error { return stop }), stop)
}

func testLatestEntries(t *testing.T, s Store) {
	signer := NewSigner(t)
	web, db := MachineID(1), MachineID(2)
	written := []kms.LogEntry{
		NewEntry(t, signer, web, actionRelease, 0),
		NewEntry(t, signer, db, actionRelease, 1),
		NewEntry(t, signer, "", actionRevoke, 2),
		NewEntry(t, signer, web, actionRevoke, 3),
		NewEntry(t, signer, web, actionRelease, 4),
	}
	put(t, s, kms.Outcome{Entries: written})
	_, err := s.Sequence(context.Background(), 4, Extend(signer))
	require.NoError(t, err)
	for _, c := range []struct {
		machine, action string
		limit           int
		want            []int
	}{
		{"", "", 10, []int{4, 3, 2, 1, 0}},
		{"", "", 2, []int{4, 3}},
		{web, "", 10, []int{4, 3, 0}},
		{"", actionRevoke, 10, []int{3, 2}},
		{web, actionRelease, 10, []int{4, 0}},
		{web, actionRelease, 1, []int{4}},
		{db, actionRevoke, 10, nil},
		{MachineID(9), "", 10, nil},
	} {
		var want []kms.FoundEntry
		for _, i := range c.want {
			index := int64(i)
			if i == 4 {
				index = -1 // not in the tree yet
			}
			want = append(want, kms.FoundEntry{Index: index, Signed: written[i].Signed.Marshal()})
		}
		got, err := s.LatestEntries(context.Background(), c.machine, c.action, c.limit)
		require.NoError(t, err)
		assert.Equal(t, want, got, "%+v", c)
	}
}

func testTreeHashes(t *testing.T, s Store) {
	writeEntries(t, s, 0, 5)
	_, err := s.Sequence(context.Background(), 5, Extend(NewSigner(t)))
	require.NoError(t, err)
	hashes := s.TreeHashes(context.Background())
	head, _, err := s.Head(context.Background())
	require.NoError(t, err)
	tree, err := NewSigner(t).Verifier().OpenHead(head)
	require.NoError(t, err)
	for i := range int64(5) {
		proof, err := audit.Prove(hashes, head, tree, i)
		require.NoError(t, err)
		_, err = NewSigner(t).Verifier().CheckInclusion(NewEntry(t, NewSigner(t), "", actionRelease, int(i)).Signed.Marshal(), proof)
		require.NoError(t, err)
	}
	_, err = hashes.ReadHashes([]int64{0, 1000})
	assert.Error(t, err, "a hash that is not there")
}
