package quorum

import (
	"io/fs"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Without a blind, whoever reads the public commitment could tell whether two
// wrappers hold one key, and try keys that are not random.
func TestCommitmentTellsNothingOfTheKey(t *testing.T) {
	one, other := goodPayload(t, &counting{1}), goodPayload(t, &counting{2})
	assert.NotEqual(t, commitmentTo(one), commitmentTo(other))
}

func TestRecipientsBelongToRootOrTheService(t *testing.T) {
	require.NoError(t, checkAccess(0o644, 0, 990))
	require.NoError(t, checkAccess(0o600, 990, 990))
	require.ErrorContains(t, checkAccess(0o600, 1000, 990), "belongs to uid 1000")
	require.ErrorContains(t, checkAccess(0o600, -1, 990), "belongs to uid -1")
	require.ErrorContains(t, checkAccess(fs.ModeNamedPipe|0o600, 0, 990), "not a regular file")
}
