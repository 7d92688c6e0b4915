package quorum_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/root"
	"keywright.dev/kms/root/quorum"
)

// orders calls visit with every order of list.
func orders(list []quorum.Given, visit func([]quorum.Given)) {
	var permute func(int)
	permute = func(k int) {
		if k == len(list) {
			visit(slices.Clone(list))
			return
		}
		for i := k; i < len(list); i++ {
			list[k], list[i] = list[i], list[k]
			permute(k + 1)
			list[k], list[i] = list[i], list[k]
		}
	}
	permute(0)
}

func TestAnyThresholdOpensAndNoFewer(t *testing.T) {
	names := []string{"Alice", "Bob", "Carol", "Dave", "Erin"}
	for _, c := range []struct{ threshold, n int }{{1, 1}, {2, 2}, {2, 3}, {3, 3}, {3, 5}, {4, 5}, {5, 5}} {
		list := people(t, names[:c.n]...)
		r := opened(t, c.threshold, list)
		all := shares(t, r, list, entry(t, r, "a", 7))
		for mask := range 1 << c.n {
			var chosen []quorum.Given
			var absent []string
			for i := range all {
				if mask>>i&1 == 1 {
					chosen = append(chosen, all[i])
				} else {
					absent = append(absent, names[i])
				}
			}
			orders(chosen, func(given []quorum.Given) {
				given = append(given, given...) // each twice
				out := quorum.Combine(nil, given)
				require.Empty(t, out.Faults)
				switch {
				case len(chosen) == 0:
					require.Empty(t, out.Recovered)
					require.Empty(t, out.Failed)
				case len(chosen) < c.threshold:
					require.Empty(t, out.Recovered)
					require.Len(t, out.Failed, 1)
					require.ErrorIs(t, out.Failed[0], quorum.ErrTooFew)
					assert.ElementsMatch(t, absent, out.Failed[0].Missing)
				default:
					require.Len(t, out.Recovered, 1, "%d of %d", c.threshold, c.n)
					require.Empty(t, out.Failed)
					assert.True(t, key(7).Equal(out.Recovered[0].Key))
					assert.Len(t, out.Recovered[0].By, len(chosen))
				}
			})
		}
	}
}

func TestManyKeyringVersionsAtOnce(t *testing.T) {
	list := people(t, "Alice", "Bob", "Carol")
	r := opened(t, 2, list)
	var entries []quorum.Entry
	for n := range 5 {
		entries = append(entries, entry(t, r, fmt.Sprint("keyring/a@", n), n))
	}
	given := shares(t, r, list[:2], entries...)
	given = slices.Delete(given, 6, 7) // Bob's of the second
	slices.Reverse(given)
	out := quorum.Combine(sets(t, entries), given)
	require.Empty(t, out.Faults)
	require.Len(t, out.Failed, 1)
	require.ErrorIs(t, out.Failed[0], quorum.ErrTooFew)
	assert.Equal(t, string(entries[1].Context), string(out.Failed[0].Set.Context))
	assert.Contains(t, out.Failed[0].Error(), `"keywright/keyring/v1 default prod 3keyring/a@1"`)
	require.Len(t, out.Recovered, 4)
	for i, n := range []int{0, 2, 3, 4} {
		assert.True(t, key(n).Equal(out.Recovered[i].Key))
		assert.Equal(t, entries[n].Context, out.Recovered[i].Set.Context)
	}
	out.Wipe()
	assert.Zero(t, out.Recovered[0].Key.Len())
	assert.Positive(t, given[0].Data.Len(), "shares stay the caller's")
}

// The same key wrapped twice gives two sets, whose shares never combine.
func TestTwoSetsOfOneKeyNeverMix(t *testing.T) {
	list := people(t, "Alice", "Bob", "Carol")
	r := opened(t, 2, list)
	first, second := entry(t, r, "a", 1), entry(t, r, "a", 1)
	require.NotEqual(t, setOf(t, first).ID(), setOf(t, second).ID())
	mixed := append(shares(t, r, list[:1], first), shares(t, r, list[1:2], second)...)
	out := quorum.Combine(nil, mixed)
	require.Empty(t, out.Recovered)
	require.Len(t, out.Failed, 2)
	assert.Equal(t, []string{"Bob", "Carol"}, sorted(out.Failed[0].Missing))

	out = quorum.Combine([]quorum.Set{setOf(t, first)}, mixed)
	require.Len(t, out.Faults, 1)
	require.ErrorIs(t, out.Faults[0], quorum.ErrForeign)
	assert.Equal(t, "Bob", out.Faults[0].Custodian)
	assert.Equal(t, "Bob.txt: a", out.Faults[0].From)

	whole := append(shares(t, r, list, first), shares(t, r, list, second)...)
	out = quorum.Combine(nil, whole)
	require.Len(t, out.Recovered, 2, "they agree on the key")
}

func sorted(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return list
}

// One share that is damaged hinders nobody while there are enough others.
func TestDamagedShareIsNamedAndTheOthersOpen(t *testing.T) {
	list := people(t, "Alice", "Bob", "Carol")
	r := opened(t, 2, list)
	e := entry(t, r, "keyring/a@1", 1)
	given := shares(t, r, list, e)
	for i := range given[0].Data.Len() {
		damaged := secretOf(given[0].Data.Expose())
		damaged.Expose()[i] ^= 1
		bad := quorum.Given{From: "Alice.txt: keyring/a@1", Data: damaged}
		out := quorum.Combine([]quorum.Set{setOf(t, e)}, []quorum.Given{bad, given[1]})
		require.Empty(t, out.Recovered)
		require.Len(t, out.Faults, 1, i)
		require.ErrorIs(t, out.Faults[0], root.ErrDoesNotOpen)
		assert.Contains(t, out.Faults[0].Error(), "Alice.txt: keyring/a@1")
		require.Len(t, out.Failed, 1)
		require.ErrorIs(t, out.Failed[0], quorum.ErrTooFew)
		out = quorum.Combine([]quorum.Set{setOf(t, e)}, []quorum.Given{bad, given[1], given[2]})
		require.Len(t, out.Recovered, 1)
		require.Len(t, out.Faults, 1)
		out.Wipe()
	}
}

// A share of the wrapper in the store that was altered is its custodian's fault
// alone, and Verify tells it with the key in hand, before anybody is asked.
func TestAlteredWrapperIsToldWithoutCustodians(t *testing.T) {
	list := people(t, "Alice", "Bob", "Carol")
	r := opened(t, 2, list)
	e := entry(t, r, "a", 1)
	require.NoError(t, r.Verify(e.Wrapped, key(1), e.Context))
	require.ErrorIs(t, r.Verify(e.Wrapped, key(2), e.Context), quorum.ErrAltered)
	require.ErrorIs(t, r.Verify(e.Wrapped, key(1), []byte("other")), quorum.ErrAltered)
	require.ErrorIs(t, opened(t, 3, list).Verify(e.Wrapped, key(1), e.Context), quorum.ErrAltered)
	for i := 0; i < len(e.Wrapped); i += 7 {
		altered := slices.Clone(e.Wrapped)
		altered[i] ^= 1
		require.ErrorIs(t, r.Verify(altered, key(1), e.Context), root.ErrDoesNotOpen, i)
	}
}

func TestNoErrorShowsAShare(t *testing.T) {
	list := people(t, "Alice", "Bob", "Carol")
	r := opened(t, 3, list)
	given := shares(t, r, list[:2], entry(t, r, "a", 1))
	out := quorum.Combine(nil, given)
	text := fmt.Sprintf("%v %+v %#v %v %+v", out, out, out.Failed[0].Error(), given, given)
	for _, g := range given {
		value := g.Data.Expose()[g.Data.Len()-40:]
		assert.NotContains(t, text, fmt.Sprintf("%x", value))
		assert.NotContains(t, text, fmt.Sprint(value)[1:40])
	}
}
