package storetest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
)

// A keyring's first use stays, whatever comes later; a change that fails leaves none.
func testKeyringUses(t *testing.T, s Store) {
	first := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	use := func(keyring string, version uint32, at time.Time) kms.KeyringUse {
		return kms.KeyringUse{Keyring: keyring, Version: version, First: at}
	}
	put(t, s, kms.Outcome{Uses: []kms.KeyringUse{use("prod", 2, first), use("default", 1, first)}})
	put(t, s, kms.Outcome{Uses: []kms.KeyringUse{use("prod", 2, first.Add(time.Hour)), use("prod", 1, first.Add(time.Hour))}})
	require.Error(t, s.Transact(context.Background(), kms.Key{}, func(kms.State) (kms.Outcome, error) {
		return kms.Outcome{Uses: []kms.KeyringUse{use("other", 1, first)}}, assert.AnError
	}))
	got, err := s.KeyringUses(context.Background())
	require.NoError(t, err)
	assert.Equal(t, []kms.KeyringUse{use("default", 1, first), use("prod", 1, first.Add(time.Hour)), use("prod", 2, first)}, got)
}
