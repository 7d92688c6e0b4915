package kms_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/root"
)

// A change of a version's state asks no root, and is made or not: what other
// versions open with does not turn it into an error.
func TestVersionsChangeWhileRootsAreAway(t *testing.T) {
	r := newSwitched(t)
	f, ctx := rooted(t, r), t.Context()
	m := f.active("web-17")
	f.rotate(kms.DefaultKeyring)
	_, err := f.CreateKeyring(ctx, operator(), "prod")
	require.NoError(t, err)
	f.rotate("prod")
	f.disable("prod@1")
	_, err = f.ScheduleDestroy(ctx, operator(), f.version("prod@1"), 0)
	require.NoError(t, err)
	r.down.Store(true)
	require.NoError(t, f.DropLeases(ctx, operator(), ""))

	f.disable("default@1")
	_, err = f.EnableKeyring(ctx, operator(), f.version("default@1"))
	require.NoError(t, err)
	_, err = f.CancelDestroy(ctx, operator(), f.version("prod@1"))
	require.NoError(t, err)
	assert.Equal(t, kms.KeyringDisabled, f.version("prod@1").Status)
	_, err = f.ScheduleDestroy(ctx, operator(), f.version("prod@1"), 0)
	require.NoError(t, err)
	_, err = f.CancelDestroy(ctx, operator(), f.version("prod@1"))
	require.NoError(t, err)
	_, err = f.RewrapPage(ctx, operator(), kms.DefaultKeyring, "", 10, noPause)
	require.ErrorIs(t, err, kms.ErrRoots, "this one needs the keys")

	// The root is back: what was cancelled opens at the next upkeep, if not before.
	r.down.Store(false)
	f.clock.Advance(time.Minute)
	require.NoError(t, f.keys.Upkeep(ctx))
	for _, l := range f.keys.Leases() {
		assert.Positive(t, l.Left, l.Keyring)
	}
	f.unlock(m)
}

// A new version needs every root, and the one that does not answer is named.
func TestRootThatIsAwayIsNamed(t *testing.T) {
	first, second := newSwitched(t), newSwitched(t)
	f := rooted(t, first, second)
	second.down.Store(true)
	_, err := f.RotateKeyring(t.Context(), operator(), kms.DefaultKeyring, 0)
	var wraps *kms.WrapError
	require.ErrorAs(t, err, &wraps)
	require.ErrorIs(t, err, kms.ErrRoots)
	assert.Equal(t, second.URI(), wraps.Root)
}

// A keyring that no root opens hinders the rewrap of no other.
func TestOtherKeyringsRewrapBesideOneThatIsLost(t *testing.T) {
	first, second := newSwitched(t), newSwitched(t)
	f, ctx := rooted(t, first), t.Context()
	m := f.active("web-17")
	f.rotate(kms.DefaultKeyring)
	f.keys.Roots = append(f.keys.Roots, second)
	_, _, err := f.RewrapRoots(ctx, operator())
	require.NoError(t, err)
	f.keys.Roots = f.keys.Roots[:1]
	_, err = f.CreateKeyring(ctx, operator(), "lost")
	require.NoError(t, err)
	f.keys.Roots = []root.Root{second}
	require.NoError(t, f.DropLeases(ctx, operator(), ""))
	assert.Equal(t, 4, f.rewrapAll(kms.DefaultKeyring, 10).Done)
	f.unlock(m)
}
