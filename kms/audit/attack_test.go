package audit_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/audit"
)

// forgery is an export that the database's owner made: lines as they would
// leave the service, in the log of attackLog.
type forgery struct {
	name  string
	forge func(l *testLog) [][]byte
	kept  []int64 // sizes of the heads kept elsewhere
	want  []audit.Finding
}

// attackLog has heads at 4, 7 and 12 entries; its lines are
// 0 header, 1–4 entries 0–3, 5 head, 6–8 entries 4–6, 9 head, 10–14 entries 7–11, 15 head.
func attackLog(t *testing.T) *testLog {
	return newLog(t, 4, 3, 5)
}

func finding(kind audit.FindingKind, first, last int64) audit.Finding {
	return audit.Finding{Kind: kind, First: first, Last: last}
}

func TestAttack22AuditLogEditedOrCutOff(t *testing.T) {
	for _, f := range slices.Concat(fileForgeries(), databaseForgeries(), truncations()) {
		t.Run(f.name, func(t *testing.T) {
			l := attackLog(t)
			export := bytes.Join(f.forge(l), nil)
			require.NotEqual(t, attackLog(t).export(), export, "the forgery changes nothing")

			r, err := audit.VerifyExport(bytes.NewReader(export), l.signer.Verifier(), keptHeads(t, f.kept)...)
			require.ErrorIs(t, err, audit.ErrTampered)
			var got []audit.Finding
			for _, found := range r.Findings {
				assert.NotEmpty(t, found.Text)
				assert.ErrorContains(t, err, r.Findings[0].String())
				got = append(got, finding(found.Kind, found.First, found.Last))
			}
			assert.Equal(t, f.want, got)
		})
	}
}

// keptHeads are heads of the genuine log that somebody else kept.
func keptHeads(t *testing.T, sizes []int64) []audit.Tree {
	l := newLog(t, 4, 3, 5, 3)
	var kept []audit.Tree
	for _, size := range sizes {
		tree, err := l.signer.Verifier().OpenHead(l.heads[size])
		require.NoError(t, err)
		kept = append(kept, tree)
	}
	return kept
}

// fileForgeries change the exported file.
func fileForgeries() []forgery {
	edit := func(line int, old, new string) func(*testLog) [][]byte {
		return func(l *testLog) [][]byte {
			lines := l.lines()
			lines[line] = bytes.Replace(lines[line], []byte(old), []byte(new), 1)
			return lines
		}
	}
	return []forgery{
		{name: "entry edited", forge: edit(7, "web-17", "web-71"), want: []audit.Finding{finding(audit.Edited, 5, 5)}},
		{name: "entry line damaged", forge: edit(7, `"leaf"`, `"LEAF"`), want: []audit.Finding{finding(audit.Malformed, 5, 5)}},
		{name: "head edited", forge: edit(9, `\n7\n`, `\n6\n`), want: []audit.Finding{finding(audit.BadHead, 7, 7)}},
		{name: "head line damaged", forge: edit(9, `\n7\n`, `\q7\n`), want: []audit.Finding{finding(audit.Malformed, 7, 7)}},
		{
			name:  "entry removed",
			forge: func(l *testLog) [][]byte { return slices.Delete(l.lines(), 7, 8) },
			want:  []audit.Finding{finding(audit.Missing, 5, 5)},
		},
		{
			name:  "last entry before a head removed",
			forge: func(l *testLog) [][]byte { return slices.Delete(l.lines(), 8, 9) },
			want:  []audit.Finding{finding(audit.Missing, 6, 6)},
		},
		{
			name: "two lines swapped",
			forge: func(l *testLog) [][]byte {
				lines := l.lines()
				lines[6], lines[7] = lines[7], lines[6]
				return lines
			},
			want: []audit.Finding{finding(audit.Missing, 4, 4), finding(audit.OutOfOrder, 4, 4)},
		},
		{
			name:  "entry repeated",
			forge: func(l *testLog) [][]byte { return slices.Insert(l.lines(), 7, l.lines()[6]) },
			want:  []audit.Finding{finding(audit.OutOfOrder, 4, 4)},
		},
		{
			name:  "head moved forward",
			forge: func(l *testLog) [][]byte { return slices.Insert(l.lines(), 3, l.lines()[5]) },
			want: []audit.Finding{
				finding(audit.Missing, 2, 3), finding(audit.OutOfOrder, 2, 2), finding(audit.OutOfOrder, 3, 3),
			},
		},
		{
			name:  "head moved back",
			forge: func(l *testLog) [][]byte { return slices.Insert(l.lines(), 8, l.lines()[5]) },
			want:  []audit.Finding{finding(audit.BadHead, 4, 5)},
		},
		{
			name: "several entries edited",
			forge: func(l *testLog) [][]byte {
				return [][]byte{bytes.ReplaceAll(bytes.Join(l.lines(), nil), []byte("req-1"), []byte("req-9"))}
			},
			want: []audit.Finding{finding(audit.Edited, 1, 1), finding(audit.Edited, 10, 10), finding(audit.Edited, 11, 11)},
		},
	}
}

// databaseForgeries change rows; the service then exports them in good faith.
func databaseForgeries() []forgery {
	rows := func(change func(*testLog)) func(*testLog) [][]byte {
		return func(l *testLog) [][]byte {
			change(l)
			return l.lines()
		}
	}
	swap := func(l *testLog) { l.entries[4], l.entries[5] = l.entries[5], l.entries[4] }
	return []forgery{
		{
			name:  "entries swapped",
			forge: rows(swap),
			want:  []audit.Finding{finding(audit.Replaced, 4, 4), finding(audit.Replaced, 5, 5)},
		},
		{
			name: "entries swapped, and the tree with them",
			forge: rows(func(l *testLog) {
				swap(l)
				l.leaves[4], l.leaves[5] = l.leaves[5], l.leaves[4]
			}),
			want: []audit.Finding{finding(audit.Rewritten, 4, 6)},
		},
		{
			name: "entry removed, and the tree closed up",
			forge: rows(func(l *testLog) {
				l.entries = slices.Delete(l.entries, 4, 5)
				l.leaves = slices.Delete(l.leaves, 4, 5)
			}),
			want: []audit.Finding{finding(audit.Rewritten, 4, 6)},
		},
		{
			name: "entry replaced by a copy of an older signed one",
			forge: rows(func(l *testLog) {
				l.entries[9], l.leaves[9] = l.entries[1], l.leaves[1]
			}),
			want: []audit.Finding{finding(audit.Rewritten, 7, 11)},
		},
		{
			name: "entry signed with another key",
			forge: rows(func(l *testLog) {
				signed, err := newSigner(l.tb, 9).Sign(entryN(8))
				require.NoError(l.tb, err)
				l.entries[8], l.leaves[8] = signed.Marshal(), signed.Leaf()
			}),
			want: []audit.Finding{finding(audit.Edited, 8, 8), finding(audit.Rewritten, 7, 11)},
		},
		{
			name:  "a copy of the log's key rewrites the past; a head was kept elsewhere",
			forge: func(l *testLog) [][]byte { return rewrite(l, 5) },
			kept:  []int64{7, 4},
			want:  []audit.Finding{finding(audit.Rewritten, 4, 6)},
		},
	}
}

// rewrite changes one entry with the log's own key and signs every head anew.
func rewrite(l *testLog, index int) [][]byte {
	e := entryN(index)
	e.Object = "machine/other"
	signed, err := l.signer.Sign(e)
	require.NoError(l.tb, err)
	l.entries[index], l.leaves[index] = signed.Marshal(), signed.Leaf()
	for size := range l.heads {
		tree, err := audit.Append(nil, audit.EmptyTree(), l.leaves[:size])
		require.NoError(l.tb, err)
		l.heads[size] = l.sign(tree.Tree)
	}
	return l.lines()
}

// truncations cut the log off at its end.
func truncations() []forgery {
	upTo := func(lines int) func(*testLog) [][]byte {
		return func(l *testLog) [][]byte { return l.lines()[:lines] }
	}
	return []forgery{
		{name: "in the middle of a batch", forge: upTo(13), want: []audit.Finding{finding(audit.Uncovered, 7, 9)}},
		{
			name: "in the middle of a line",
			forge: func(l *testLog) [][]byte {
				lines := l.lines()[:13]
				lines[12] = lines[12][:100]
				return lines
			},
			want: []audit.Finding{finding(audit.Malformed, 9, 9)},
		},
		{
			name: "only the newline",
			forge: func(l *testLog) [][]byte {
				lines := l.lines()
				lines[15] = bytes.TrimSuffix(lines[15], []byte("\n"))
				return lines
			},
			want: []audit.Finding{finding(audit.Malformed, 12, 12), finding(audit.Uncovered, 7, 11)},
		},
		{
			name: "at an older head, as if nothing had followed",
			// Without the kept head this is a perfect export of an earlier day.
			forge: upTo(10), kept: []int64{4, 12},
			want: []audit.Finding{finding(audit.Truncated, 7, 11)},
		},
		{
			name: "before a head that is newer than the export", forge: func(l *testLog) [][]byte {
				return slices.Delete(l.lines(), 10, 16)
			},
			kept: []int64{7, 15},
			want: []audit.Finding{finding(audit.Truncated, 7, 14)},
		},
		{name: "to nothing", forge: upTo(1), want: []audit.Finding{finding(audit.Uncovered, 0, 0)}},
	}
}

// TestAttack22WithoutAKeptHeadOnlyTheEndCanHide is why heads are kept elsewhere.
func TestAttack22WithoutAKeptHeadOnlyTheEndCanHide(t *testing.T) {
	l := attackLog(t)
	cut := bytes.Join(l.lines()[:10], nil)
	r, err := audit.VerifyExport(bytes.NewReader(cut), l.signer.Verifier())
	require.NoError(t, err)
	assert.Equal(t, int64(7), r.Head.N)
}
