package kms_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/root"
)

// TestAttack21WrappersAreSwapped puts what the root wrapped for one keyring into the
// row of another: it opens there as little as one's own does, and no boot gets a key.
func TestAttack21WrappersAreSwapped(t *testing.T) {
	r := newSwitched(t)
	f := rooted(t, r)
	m := f.active("web-17")
	_, err := f.CreateKeyring(t.Context(), operator(), "prod")
	require.NoError(t, err)
	own, other := f.version("default@1"), f.version("prod@1")
	f.write(kms.Outcome{Wrappers: []kms.VersionWrapper{
		{Keyring: own.Keyring, Version: own.Version, Wrapper: other.Wrappers[0]},
		{Keyring: other.Keyring, Version: other.Version, Wrapper: own.Wrappers[0]},
	}})
	_, err = kms.OpenKeys(t.Context(), f.keysConfig(r))
	require.NoError(t, err, "the system keyring opens")

	f.keys.Wipe()
	require.ErrorIs(t, f.keys.Upkeep(t.Context()), root.ErrDoesNotOpen)
	for _, v := range []*kms.KeyringVersion{own, other} {
		err := f.keys.Open(t.Context(), v.Keyring, v.Version)
		require.ErrorIs(t, err, root.ErrDoesNotOpen)
		require.ErrorIs(t, err, kms.ErrRootsRefuse)
	}
	assert.Equal(t, 1, f.keys.HeldKeys())
	m.Boot()
	_, err = m.Unlock(t.Context(), f.guest())
	require.ErrorIs(t, err, kms.ErrRootsRefuse)
}
