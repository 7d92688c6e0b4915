package audit_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"keywright.dev/kms/audit"
)

// rfc6962 computes the root the way RFC 6962 section 2.1 writes it.
func rfc6962(leaves []audit.Hash) audit.Hash {
	if len(leaves) == 0 {
		return sha256.Sum256(nil)
	}
	if len(leaves) == 1 {
		return leaves[0]
	}
	k := 1
	for k*2 < len(leaves) {
		k *= 2
	}
	left, right := rfc6962(leaves[:k]), rfc6962(leaves[k:])
	return sha256.Sum256(slices.Concat([]byte{1}, left[:], right[:]))
}

func TestAppendComputesTheRootOfRFC6962(t *testing.T) {
	for size := range 70 {
		for _, batch := range []int{1, 3, 64} {
			var batches []int
			for left := size; left > 0; left -= batch {
				batches = append(batches, min(left, batch))
			}
			l := newLog(t, batches...)
			assert.Equal(t, audit.Tree{N: int64(size), Hash: rfc6962(l.leaves)}, l.tree())
			assert.Len(t, l.stored, int(tlog.StoredHashCount(int64(size))))
		}
	}
}

func TestLeafIsTheRFC6962HashOfTheStoredBytes(t *testing.T) {
	l := newLog(t, 1)
	assert.Equal(t, audit.Hash(sha256.Sum256(append([]byte{0}, l.entries[0]...))), l.leaves[0])
}

// TestAttack22NoHeadOverARewrittenTree: whoever owns the database rewrites the
// stored tree, so that the next head would vouch for the rewritten past.
func TestAttack22NoHeadOverARewrittenTree(t *testing.T) {
	l := newLog(t, 11)
	next := []audit.Hash{{1}}
	for _, index := range []int64{14, 17, 18} { // the roots of 8, 2 and 1 entries
		forged := slices.Clone(l.stored)
		forged[index][0] ^= 1
		_, err := audit.Append(forged, l.tree(), next)
		require.ErrorIs(t, err, audit.ErrTreeChanged, "hash %d", index)
	}
	_, err := audit.Append(l.stored, audit.Tree{N: 10, Hash: l.tree().Hash}, next)
	require.ErrorIs(t, err, audit.ErrTreeChanged)
	_, err = audit.Append(nil, audit.Tree{}, next)
	require.ErrorIs(t, err, audit.ErrTreeChanged, "the empty tree has a root too")
	_, err = audit.Append(l.stored, l.tree(), next)
	require.NoError(t, err)
}

func TestAppendReportsWhatItCouldNotRead(t *testing.T) {
	l := newLog(t, 3)
	broken := tlog.HashReaderFunc(func([]int64) ([]audit.Hash, error) { return nil, errors.New("disk gone") })
	_, err := audit.Append(broken, l.tree(), nil)
	require.ErrorContains(t, err, "disk gone")
	short := tlog.HashReaderFunc(func([]int64) ([]audit.Hash, error) { return nil, nil })
	_, err = audit.Append(short, l.tree(), nil)
	require.ErrorContains(t, err, "0 hashes, want 2")
}

func TestHeadComesBack(t *testing.T) {
	l := newLog(t, 5)
	tree, err := l.signer.Verifier().OpenHead(l.heads[5])
	require.NoError(t, err)
	assert.Equal(t, l.tree(), tree)

	empty, err := l.signer.Verifier().OpenHead(l.sign(audit.EmptyTree()))
	require.NoError(t, err)
	assert.Equal(t, audit.EmptyTree(), empty)
}

func TestHeadWithAWitnessLineOpens(t *testing.T) {
	l := newLog(t, 5)
	private, public, err := note.GenerateKey(strings.NewReader(strings.Repeat("w", 64)), "witness.example.com")
	require.NoError(t, err)
	witness, err := note.NewSigner(private)
	require.NoError(t, err)
	key, err := note.NewVerifier(l.signer.Verifier().String())
	require.NoError(t, err)
	opened, err := note.Open(l.heads[5], note.VerifierList(key))
	require.NoError(t, err)
	cosigned, err := note.Sign(opened, witness)
	require.NoError(t, err)

	tree, err := l.signer.Verifier().OpenHead(cosigned)
	require.NoError(t, err)
	assert.Equal(t, l.tree(), tree)

	other, err := audit.ParseVerifier(public)
	require.NoError(t, err)
	_, err = other.OpenHead(cosigned)
	require.ErrorContains(t, err, "another origin", "a witness's signature makes it no head of the witness's")
}

func TestHeadThatIsNotOursIsRefused(t *testing.T) {
	l := newLog(t, 5)
	v := l.signer.Verifier()
	head := l.heads[5]
	for i := range head {
		bad := bytes.Clone(head)
		bad[i] ^= 1
		_, err := v.OpenHead(bad)
		require.Error(t, err, "byte %d", i)
	}
	_, err := newSigner(t, 2).Verifier().OpenHead(head)
	require.ErrorIs(t, err, audit.ErrSignature)
	_, err = v.OpenHead(bytes.Replace(head, []byte("\n5\n"), []byte("\n4\n"), 1))
	require.ErrorIs(t, err, audit.ErrSignature)
	_, err = v.OpenHead(bytes.Repeat([]byte("a"), 1<<20))
	require.ErrorContains(t, err, "at most")
}

// rawSigner signs any text with the log's key.
type rawSigner struct{ note.Verifier }

func (rawSigner) Sign(text []byte) ([]byte, error) {
	return ed25519.Sign(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize)), text), nil
}

func TestHeadOfAnotherShapeIsRefused(t *testing.T) {
	v := newSigner(t, 1).Verifier()
	key, err := note.NewVerifier(v.String())
	require.NoError(t, err)
	root := audit.EmptyTree().Hash.String()
	for _, text := range []string{
		origin + "\n5\n" + root + "\nextension\n",
		origin + "\n5\n",
		"other.example.com\n5\n" + root + "\n",
		origin + "\n05\n" + root + "\n",
		origin + "\n-5\n" + root + "\n",
		origin + "\n9007199254740992\n" + root + "\n",
		origin + "\n5\nAAAA\n",
		origin + "\n5\n" + strings.TrimRight(root, "=") + "\n",
	} {
		head, err := note.Sign(&note.Note{Text: text}, rawSigner{key})
		require.NoError(t, err)
		_, err = v.OpenHead(head)
		assert.ErrorContains(t, err, "opening audit head: ", "%q", text)
		assert.NotErrorIs(t, err, audit.ErrSignature)
	}
}

func TestEveryEntryIsProvedInEveryTree(t *testing.T) {
	l := newLog(t, 1, 1, 1, 1, 1, 1, 1, 1, 1)
	v := l.signer.Verifier()
	for _, tree := range l.trees[1:] {
		for index := range tree.N {
			p, err := audit.Prove(l.stored, l.heads[tree.N], tree, index)
			require.NoError(t, err)
			parsed, err := audit.ParseProof(p.Marshal())
			require.NoError(t, err)
			got, err := v.CheckInclusion(l.entries[index], parsed)
			require.NoError(t, err)
			assert.Equal(t, tree, got)

			_, err = v.CheckInclusion(l.entries[(index+1)%9], parsed)
			require.ErrorIs(t, err, audit.ErrNotProved)
		}
	}
}

func TestProofIsRefused(t *testing.T) {
	l := newLog(t, 5, 4)
	v := l.signer.Verifier()
	_, err := audit.Prove(l.stored, l.heads[9], l.tree(), 9)
	require.ErrorContains(t, err, "covers 9 entries")
	good, err := audit.Prove(l.stored, l.heads[9], l.tree(), 4)
	require.NoError(t, err)
	for name, change := range map[string]func(*audit.Proof){
		"other index":    func(p *audit.Proof) { p.Index = 5 },
		"index outside":  func(p *audit.Proof) { p.Index = 9 },
		"negative index": func(p *audit.Proof) { p.Index = -1 },
		"older head":     func(p *audit.Proof) { p.Head = l.heads[5] },
		"hash changed":   func(p *audit.Proof) { p.Hashes[0][0] ^= 1 },
		"hash left out":  func(p *audit.Proof) { p.Hashes = p.Hashes[1:] },
	} {
		bad := audit.Proof{Index: good.Index, Hashes: slices.Clone(good.Hashes), Head: good.Head}
		change(&bad)
		_, err := v.CheckInclusion(l.entries[4], bad)
		require.ErrorIs(t, err, audit.ErrNotProved, name)
	}
	good.Head = newLog(t, 9).heads[9][:50]
	_, err = v.CheckInclusion(l.entries[4], good)
	require.ErrorContains(t, err, "not a signed note")
}

func TestConsistencyOfEveryPairOfTrees(t *testing.T) {
	l := newLog(t, 1, 1, 1, 1, 1, 1, 1, 1, 1)
	for _, older := range l.trees {
		for _, newer := range l.trees {
			proof, err := audit.ProveConsistency(l.stored, older.N, newer.N)
			if older.N > newer.N {
				require.ErrorContains(t, err, "older, smaller size first")
				require.ErrorIs(t, audit.CheckConsistency(older, newer, nil), audit.ErrNotProved)
				continue
			}
			require.NoError(t, err)
			require.NoError(t, audit.CheckConsistency(older, newer, proof))

			forged := older
			forged.Hash[5] ^= 1
			require.ErrorIs(t, audit.CheckConsistency(forged, newer, proof), audit.ErrNotProved,
				fmt.Sprint(older.N, newer.N))
		}
	}
}

func FuzzParseProof(f *testing.F) {
	l := newLog(f, 5)
	p, err := audit.Prove(l.stored, l.heads[5], l.tree(), 2)
	require.NoError(f, err)
	f.Add(p.Marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := audit.ParseProof(b)
		if err != nil {
			return
		}
		assert.True(t, bytes.Equal(b, p.Marshal()), "%q", b)
		_, _ = l.signer.Verifier().CheckInclusion(l.entries[2], p)
	})
}
