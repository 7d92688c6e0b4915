package awskms_test

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/root"
	"keywright.dev/kms/root/roottest"
	counterpart "keywright.dev/test/awskms"
)

// documented returns the statement Use of each policy in the docs, for this key.
func documented(t *testing.T, arn string) []counterpart.Statement {
	t.Helper()
	page, err := os.ReadFile("../../docs/roots/awskms.md")
	require.NoError(t, err)
	var uses []counterpart.Statement
	for _, block := range regexp.MustCompile("(?s)```json\n(.*?)```").FindAllSubmatch(page, -1) {
		policy, err := counterpart.ParsePolicy(block[1])
		require.NoError(t, err)
		use := policy.Statement[len(policy.Statement)-1]
		for i, resource := range use.Resource {
			if resource != "*" {
				use.Resource[i] = arn
			}
		}
		uses = append(uses, use)
	}
	return uses
}

// The policies of the docs are enough, and each of their actions is needed.
func TestDocumentedPolicies(t *testing.T) {
	a := start(t)
	r, arn := a.opened(t)
	uses := documented(t, arn)
	require.Len(t, uses, 2)
	for _, use := range uses {
		require.Equal(t, []string{"kms:Encrypt", "kms:Decrypt"}, use.Action)
		a.Allow(a.user, counterpart.Policy{Statement: []counterpart.Statement{use}})
		ciphertext := wrapped(t, r, "c")
		opens(t, r, ciphertext, "c")
		opens(t, r, wrapped(t, r, ""), "")

		for i, action := range use.Action {
			less := use
			less.Action = slices.Delete(slices.Clone(use.Action), i, i+1)
			a.Allow(a.user, counterpart.Policy{Statement: []counterpart.Statement{less}})
			errs := both(t, r, ciphertext)
			assert.ErrorIs(t, errs[i], root.ErrRefused, action)
			assert.NoError(t, errs[1-i])
		}
	}
	other, _ := a.opened(t)
	a.Allow(a.user, counterpart.Policy{Statement: uses[1:]})
	_, err := other.Wrap(t.Context(), roottest.Key(1), nil)
	require.ErrorIs(t, err, root.ErrRefused, "another key of the account")
}
