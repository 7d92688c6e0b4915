package kms_test

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"filippo.io/age"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/audit"
	"keywright.dev/kms/root/quorum"
	"keywright.dev/kms/secret"
)

func newQuorum(t *testing.T) *quorum.Root {
	t.Helper()
	path := filepath.Join(t.TempDir(), "custodians")
	var text string
	for _, name := range []string{"Alice", "Bob", "Carol"} {
		identity, err := age.GenerateX25519Identity()
		require.NoError(t, err)
		text += fmt.Sprintf("%s # %s\n", identity.Recipient(), name)
	}
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	r, err := quorum.Open(t.Context(), "age-quorum://"+path+"?threshold=2", rand.Reader)
	require.NoError(t, err)
	return r
}

func TestQuorumIsChosen(t *testing.T) {
	first, one, other := newSwitched(t), newQuorum(t), newQuorum(t)
	f := newFixtureOn(t, first)
	_, err := f.Quorum("")
	require.ErrorContains(t, err, "no custodians are configured")
	f.restart(first, one)
	q, err := f.Quorum("")
	require.NoError(t, err)
	assert.Equal(t, one.URI(), q.URI())
	f.restart(first, one, other)
	_, err = f.Quorum("")
	require.ErrorContains(t, err, "--root")
	q, err = f.Quorum(other.URI())
	require.NoError(t, err)
	assert.Equal(t, other.URI(), q.URI())
	_, err = f.Quorum(first.URI())
	require.ErrorIs(t, err, kms.ErrNotFound)
}

func TestSharesAreExportedInPages(t *testing.T) {
	first, second, q := newSwitched(t), newSwitched(t), newQuorum(t)
	f := newFixtureOn(t, first)
	f.restart(first, second, q)
	_, _, err := f.ExportShares(t.Context(), operator(), q, "", 10)
	require.ErrorContains(t, err, "recovery create")
	require.Error(t, f.CheckCustody(t.Context(), q))

	second.calls.Store(0)
	done, failures, err := f.RewrapRoots(t.Context(), operator(), q.URI())
	require.NoError(t, err)
	require.Empty(t, failures)
	assert.Len(t, done, versions)
	assert.Zero(t, second.calls.Load(), "a root that was not named is left alone")
	require.NoError(t, f.CheckCustody(t.Context(), q))

	var refs []string
	after := ""
	for range versions {
		page, next, err := f.ExportShares(t.Context(), operator(), q, after, 1)
		require.NoError(t, err)
		require.Len(t, page, 1)
		refs = append(refs, page[0].Ref())
		row, err := quorum.ParseRow(page[0].Wrapped)
		require.NoError(t, err)
		assert.Equal(t, row.Set.Context, page[0].Context)
		assert.Len(t, page[0].Check, 32)
		after = next
	}
	assert.Empty(t, after, "there are no more")
	assert.Equal(t, []string{"keyring/default@1", "keyring/system@1"}, refs)
	entry := f.lastEntry("")
	assert.Equal(t, kms.ActionExportShares, entry.Action)
	assert.Equal(t, "root/"+q.URI(), entry.Object)
	assert.Equal(t, []audit.Fact{{Name: "keyring.versions", Is: "1"}}, entry.Facts)
	for _, after := range []string{"default", "@", "default@x", "default@4294967296"} {
		_, _, err = f.ExportShares(t.Context(), operator(), q, after, 1)
		var usage *kms.UsageError
		require.ErrorAs(t, err, &usage, after)
	}
}

// A wrapper that would recover another key is found while the right one is held.
func TestExchangedSharesAreNotExported(t *testing.T) {
	first, q := newSwitched(t), newQuorum(t)
	f := newFixtureOn(t, first)
	f.restart(first, q)
	f.rewrapRoots()
	page, _, err := f.ExportShares(t.Context(), operator(), q, "", 1)
	require.NoError(t, err)
	key, err := secret.Random(rand.Reader, 32)
	require.NoError(t, err)
	forged, err := q.Wrap(t.Context(), key, page[0].Context)
	require.NoError(t, err)
	require.NoError(t, f.store.Transact(t.Context(), kms.Key{}, func(kms.State) (kms.Outcome, error) {
		w := kms.Wrapper{Root: q.URI(), Wrapped: forged.Ciphertext}
		return kms.Outcome{Wrappers: []kms.VersionWrapper{{Keyring: page[0].Keyring, Version: page[0].Version, Wrapper: w}}}, nil
	}))
	_, _, err = f.ExportShares(t.Context(), operator(), q, "", 10)
	require.ErrorContains(t, err, "keyring/default@1 for the custodians is not what was made")
	require.ErrorContains(t, f.CheckCustody(t.Context(), q), "keyring/default@1")
}

func TestDrillsAreRecorded(t *testing.T) {
	first, q := newSwitched(t), newQuorum(t)
	f := newFixtureOn(t, first)
	f.restart(first, q)
	for name, c := range map[string]struct {
		drill kms.Drill
		want  audit.Outcome
	}{
		"proven":       {kms.Drill{By: []string{"Alice", "Bob"}, Proven: []string{"keyring/default@1"}}, audit.Done},
		"partly":       {kms.Drill{By: []string{"Alice"}, Proven: []string{"keyring/default@1"}, Unproven: []string{"keyring/system@1"}}, audit.Failed},
		"nobody":       {kms.Drill{}, audit.Failed},
		"signs":        {kms.Drill{By: []string{"Alice"}}, audit.Done},
		"a sign lacks": {kms.Drill{By: []string{"Alice"}, Missing: []string{"Bob"}}, audit.Failed},
	} {
		require.NoError(t, f.RecordDrill(t.Context(), operator(), q, c.drill))
		entry := f.lastEntry("")
		assert.Equal(t, kms.ActionDrill, entry.Action, name)
		assert.Equal(t, c.want, entry.Outcome, name)
		for _, custodian := range c.drill.By {
			assert.Contains(t, entry.Facts, audit.Fact{Name: "custodian", Is: custodian}, name)
		}
	}
}
