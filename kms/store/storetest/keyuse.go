package storetest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
)

func use(keyring string, version uint32, at time.Time, wraps, unwraps int64) kms.KeyringUse {
	return kms.KeyringUse{Keyring: keyring, Version: version, First: at, Last: at, Wraps: wraps, Unwraps: unwraps}
}

func usesOf(t testing.TB, s Store) []kms.KeyringUse {
	t.Helper()
	uses, err := s.KeyringUses(context.Background())
	require.NoError(t, err)
	return uses
}

// dismissed is a use as it is once somebody dismissed it.
func dismissed(u kms.KeyringUse, at time.Time) kms.KeyringUse {
	u.Dismissed, u.DismissedBy = at, "operator/alex"
	return u
}

// Uses add up; a change that fails leaves none.
func testKeyringUses(t *testing.T, s Store) {
	addVersions(t, s, keyringVersion("prod", 1), keyringVersion("prod", 2))
	first, later := Epoch(), Epoch().Add(time.Hour)
	put(t, s, kms.Outcome{Uses: []kms.KeyringUse{use("prod", 2, first, 3, 0), use("default", 1, first, 1, 0)}})
	put(t, s, kms.Outcome{Uses: []kms.KeyringUse{use("prod", 2, later, 1, 5), use("prod", 1, later, 0, 1)}})
	put(t, s, kms.Outcome{Uses: []kms.KeyringUse{use("default", 1, first.Add(-time.Hour), 0, 1)}})
	require.Error(t, s.Transact(context.Background(), kms.Key{}, func(kms.State) (kms.Outcome, error) {
		return kms.Outcome{Uses: []kms.KeyringUse{use("default", 1, later, 1, 1)}}, assert.AnError
	}))
	two := use("prod", 2, first, 4, 5)
	two.Last = later
	want := []kms.KeyringUse{use("default", 1, first, 1, 1), use("prod", 1, later, 0, 1), two}
	assert.Equal(t, want, usesOf(t, s), "the first time stays, and the last one never goes back")
	assert.Equal(t, want[1:], stateOfKeyring(t, s, "prod").Uses)
	assert.Empty(t, stateOf(t, s, kms.Key{Machine: MachineID(1)}).Uses, "nobody asked")
}

// What was dismissed counts again with the next use.
func testDismissedUses(t *testing.T, s Store) {
	first, later := Epoch(), Epoch().Add(time.Hour)
	wrapped := use("default", 1, first, 3, 0)
	outside := []kms.Dependents{{Keyring: "default", Version: 1, Kind: kms.DependentOutside, Purpose: kms.PurposeApplication, Count: 1}}
	counted := func(want []kms.Dependents) {
		t.Helper()
		assert.Equal(t, want, stateOfKeyring(t, s, "default").Dependents)
		RequireCensus(t, s)
	}
	counted(nil)
	put(t, s, kms.Outcome{Uses: []kms.KeyringUse{wrapped}})
	counted(outside)
	for _, again := range []kms.KeyringUse{use("default", 1, later, 0, 1), use("default", 1, later, 1, 0)} {
		for range 2 { // twice is as good as once
			put(t, s, kms.Outcome{Dismissed: []kms.KeyringUse{dismissed(wrapped, later)}})
			counted(nil)
			assert.Equal(t, []kms.KeyringUse{dismissed(wrapped, later)}, usesOf(t, s))
		}
		put(t, s, kms.Outcome{Uses: []kms.KeyringUse{again}})
		counted(outside)
		wrapped.Last, wrapped.Wraps, wrapped.Unwraps = later, wrapped.Wraps+again.Wraps, wrapped.Unwraps+again.Unwraps
		assert.Equal(t, []kms.KeyringUse{wrapped}, usesOf(t, s))
	}
	err := s.Transact(context.Background(), kms.Key{}, decideTo(kms.Outcome{Dismissed: []kms.KeyringUse{dismissed(use("default", 2, first, 1, 0), later)}}))
	require.ErrorIs(t, err, kms.ErrNotFound)
}

// What a version wraps that opens nothing is lost; that it was asked for is not.
func testRetiredUses(t *testing.T, s Store) {
	two := keyringVersion("default", 2)
	addVersions(t, s, two)
	write := func(u kms.KeyringUse) error {
		return s.Transact(context.Background(), kms.Key{}, decideTo(kms.Outcome{Uses: []kms.KeyringUse{u}}))
	}
	put(t, s, kms.Outcome{Keyrings: []kms.KeyringVersion{retired(two, kms.KeyringDisabled)}})
	require.NoError(t, write(use("default", 2, Epoch(), 1, 0)), "what was wrapped a moment ago opens")
	want := use("default", 2, Epoch(), 1, 0)
	for _, status := range []kms.KeyringStatus{kms.KeyringScheduled, kms.KeyringDestroyed} {
		put(t, s, kms.Outcome{Keyrings: []kms.KeyringVersion{retired(two, status)}})
		put(t, s, kms.Outcome{Dismissed: []kms.KeyringUse{dismissed(want, Epoch())}})
		assert.ErrorIs(t, write(use("default", 2, Epoch(), 1, 0)), kms.ErrRetired)
		assert.Equal(t, []kms.KeyringUse{dismissed(want, Epoch())}, usesOf(t, s))
		require.NoError(t, write(use("default", 2, Epoch(), 0, 1)))
		want.Unwraps++
		assert.Equal(t, []kms.KeyringUse{want}, usesOf(t, s))
	}
	assert.ErrorIs(t, write(use("default", 7, Epoch(), 1, 0)), kms.ErrRetired, "a version that was never stored")
}
