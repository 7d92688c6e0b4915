package quorum_test

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/root"
	"keywright.dev/kms/root/quorum"
)

// check returns the check values of the keys in use, number 1 of the first entry.
func check(t testing.TB, entries []quorum.Entry, numbers ...int) func(string) (string, error) {
	return func(name string) (string, error) {
		for i, e := range entries {
			if e.Name == name {
				return quorum.CheckValue(key(numbers[i]), e.Context)
			}
		}
		t.Errorf("asked for %s", name)
		return "", errors.New("not held")
	}
}

func TestDrill(t *testing.T) {
	list := people(t, "Alice", "Bob", "Carol")
	r := opened(t, 2, list)
	entries := []quorum.Entry{entry(t, r, "keyring/a@1", 1), entry(t, r, "keyring/a@2", 2)}
	given := shares(t, r, list[:2], entries...)
	report := quorum.Drill(entries, given, check(t, entries, 1, 2))
	require.True(t, report.Proven(), "%v", report)
	require.Len(t, report.Proofs, 2)
	for i, p := range report.Proofs {
		assert.Equal(t, entries[i].Name, p.Name)
		assert.ElementsMatch(t, []string{"Alice", "Bob"}, p.By)
	}

	report = quorum.Drill(entries, given[:3], check(t, entries, 1, 2))
	assert.False(t, report.Proven())
	require.NoError(t, report.Proofs[0].Err)
	require.ErrorIs(t, report.Proofs[1].Err, quorum.ErrTooFew)

	report = quorum.Drill(entries, given, check(t, entries, 1, 9))
	assert.False(t, report.Proven())
	require.ErrorContains(t, report.Proofs[1].Err, "another key than the one in use")

	report = quorum.Drill(entries, given, func(string) (string, error) { return "", errors.New("the lease has ended") })
	assert.False(t, report.Proven())
	require.ErrorContains(t, report.Proofs[0].Err, "the lease has ended")

	broken := []quorum.Entry{{Name: "keyring/a@1", Context: entries[0].Context, Wrapped: entries[0].Wrapped[1:]}}
	report = quorum.Drill(broken, given, check(t, entries, 1, 2))
	assert.False(t, report.Proven())
	require.ErrorIs(t, report.Proofs[0].Err, root.ErrDoesNotOpen)

	assert.False(t, quorum.Drill(nil, given, check(t, nil)).Proven(), "of nothing it proves nothing")

	altered := slices.Clone(entries[0].Wrapped)
	altered[len(altered)-1] ^= 1
	entries[0].Wrapped = altered
	report = quorum.Drill(entries, given, check(t, entries, 1, 2))
	assert.False(t, report.Proven())
	require.ErrorIs(t, report.Proofs[0].Err, quorum.ErrAltered)
	require.NoError(t, report.Proofs[1].Err)
}

// Who can write to the store puts the wrapper of an old, leaked version in the
// place of the newest, so that it would come back as that.
func TestAttack21WrapperInTheRowOfAnother(t *testing.T) {
	list := people(t, "Alice", "Bob", "Carol")
	r := opened(t, 2, list)
	entries := []quorum.Entry{entry(t, r, "keyring/a@1", 1), entry(t, r, "keyring/a@2", 2)}
	given := shares(t, r, list[:2], entries...)
	swapped := []quorum.Entry{entries[0], {Name: entries[1].Name, Context: entries[1].Context, Wrapped: entries[0].Wrapped}}
	require.ErrorIs(t, r.Verify(swapped[1].Wrapped, key(2), swapped[1].Context), quorum.ErrAltered)
	require.ErrorIs(t, r.Verify(swapped[1].Wrapped, key(1), swapped[1].Context), quorum.ErrAltered)

	report := quorum.Drill(swapped, given, check(t, entries, 1, 2))
	assert.False(t, report.Proven())
	require.ErrorIs(t, report.Proofs[1].Err, quorum.ErrAltered)
	require.Len(t, report.Faults, 2, "the shares of what it displaced are foreign")
	results, _ := quorum.Recover(swapped, given)
	assert.True(t, key(1).Equal(results[0].Key))
	require.ErrorIs(t, results[1].Err, quorum.ErrAltered)
	require.ErrorContains(t, results[1].Err, "its wrapper is that of another")
	assert.Zero(t, results[1].Key.Len())
}

func TestChallenges(t *testing.T) {
	list := people(t, "Alice", "Bob")
	r := opened(t, 2, list)
	challenges, err := r.Challenges()
	require.NoError(t, err)
	require.Len(t, challenges, 2)
	answers := make(map[string]string)
	for _, c := range challenges {
		for _, p := range list {
			if p.name == c.Custodian {
				plain, err := age.Decrypt(armor.NewReader(strings.NewReader(c.Text)), p)
				require.NoError(t, err)
				answer, err := io.ReadAll(plain)
				require.NoError(t, err)
				assert.Equal(t, 1, strings.Count(string(answer), "\n"), "a line, as age prints it")
				answers[p.name] = string(answer)
			}
		}
	}
	for _, c := range challenges {
		assert.True(t, c.Confirms(strings.TrimSpace(answers[c.Custodian])))
		for name, answer := range answers {
			assert.Equal(t, name == c.Custodian, c.Confirms(answer))
		}
		assert.False(t, c.Confirms(""))
	}
	again, err := r.Challenges()
	require.NoError(t, err)
	assert.False(t, again[0].Confirms(answers[again[0].Custodian]), "an answer is good once")
	r, err = quorum.Open(t.Context(), "age-quorum://"+recipientsFile(t, lines(list))+"?threshold=2", iotest.ErrReader(errors.New("no entropy")))
	require.NoError(t, err)
	_, err = r.Challenges()
	require.ErrorContains(t, err, "no entropy")
}

// A damaged store does not keep people from a key that is good: recovery says so
// and goes on, where a drill fails.
func TestRecoverGoesOnWithAnAlteredWrapper(t *testing.T) {
	list := people(t, "Alice", "Bob", "Carol")
	r := opened(t, 2, list)
	e := entry(t, r, "keyring/a@1", 1)
	given := shares(t, r, list[:2], e)
	e.Wrapped[len(e.Wrapped)-40] ^= 1
	results, faults := quorum.Recover([]quorum.Entry{e, {Name: "keyring/a@2", Context: e.Context, Wrapped: nil}}, given)
	require.Empty(t, faults)
	require.Len(t, results, 2)
	require.NoError(t, results[0].Err)
	require.ErrorIs(t, results[0].Altered, quorum.ErrAltered)
	assert.True(t, key(1).Equal(results[0].Key))
	assert.ElementsMatch(t, []string{"Alice", "Bob"}, results[0].By)
	require.ErrorIs(t, results[1].Err, quorum.ErrMalformed)
	assert.ErrorContains(t, results[1].Err, "keyring/a@2")

	results, _ = quorum.Recover([]quorum.Entry{e}, given[:1])
	require.ErrorIs(t, results[0].Err, quorum.ErrTooFew)
	assert.Equal(t, []string{"Alice"}, results[0].By)
	assert.Zero(t, results[0].Key.Len())
}
