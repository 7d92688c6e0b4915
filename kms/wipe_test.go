package kms_test

import (
	"context"
	"crypto/rand"
	"errors"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/root"
	"keywright.dev/kms/root/file"
	"keywright.dev/kms/secret"
	"keywright.dev/kms/store/sqlite"
)

func TestChallengeKeysAreWiped(t *testing.T) {
	f := newFixture(t)
	first := f.Challenges.Held()
	require.Len(t, first, 1)
	f.clock.Advance(kms.ChallengeKeyLifetime)
	require.NoError(t, f.Challenges.RotateIfDue(t.Context()))
	held := f.Challenges.Held()
	require.Len(t, held, 2)
	assert.Zero(t, first[0].Len(), "read again, and the one before wiped")
	issued, err := f.IssueChallenge(exchange.PurposeBoot)
	require.NoError(t, err)
	_, err = f.Challenges.Check(exchange.PurposeBoot, issued.Nonce[:], issued.Token)
	require.NoError(t, err)

	f.Challenges.Wipe()
	assert.Zero(t, held[0].Len()+held[1].Len())
	_, err = f.IssueChallenge(exchange.PurposeBoot)
	require.ErrorIs(t, err, kms.ErrUnavailable)
	_, err = f.Challenges.Check(exchange.PurposeBoot, issued.Nonce[:], issued.Token)
	refused(t, kms.ReasonChallenge, err)
}

// fickle is a root that answers a number of times, and remembers the keys that
// passed through it.
type fickle struct {
	root.Root
	answers int
	seen    []secret.Bytes
}

var errFickle = errors.New("no more")

func (r *fickle) Wrap(ctx context.Context, key secret.Bytes, c []byte) (root.Wrapped, error) {
	r.seen = append(r.seen, key)
	if r.answers--; r.answers < 0 {
		return root.Wrapped{}, errFickle
	}
	return r.Root.Wrap(ctx, key, c)
}

func (r *fickle) Unwrap(ctx context.Context, wrapped, c []byte) (secret.Bytes, error) {
	if r.answers--; r.answers < 0 {
		return secret.Bytes{}, errFickle
	}
	key, err := r.Root.Unwrap(ctx, wrapped, c)
	r.seen = append(r.seen, key)
	return key, err
}

func TestKeysAreWipedWhereTheyCannotBeOpened(t *testing.T) {
	path := filepath.Join(t.TempDir(), "root.key")
	require.NoError(t, file.Create(path, rand.Reader))
	opened, err := file.Open(path)
	require.NoError(t, err)
	store, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(t.TempDir(), "store.db")})
	require.NoError(t, err)
	defer store.Close()
	f := newFixture(t)
	open := func(answers int) (*kms.Keys, *fickle, error) {
		r := &fickle{Root: opened, answers: answers}
		keys, err := kms.OpenKeys(t.Context(), kms.KeysConfig{Store: store, Roots: []root.Root{r}, Clock: f.clock.Now, Uptime: f.uptime, Random: rand.Reader})
		return keys, r, err
	}
	fails := func(name string) {
		keys, r, err := open(1)
		require.ErrorIs(t, err, errFickle, name)
		assert.Nil(t, keys)
		require.NotEmpty(t, r.seen)
		for _, key := range r.seen {
			assert.Zero(t, key.Len(), name)
		}
	}
	fails("made")
	keys, _, err := open(6)
	require.NoError(t, err)
	// Of two versions of the system keyring the first opens.
	require.NoError(t, keys.Add(t.Context(), kms.SystemKeyring, 2, func(v kms.KeyringVersion) error {
		return store.AddKeys(t.Context(), []kms.KeyringVersion{v}, nil, nil)
	}))
	keys.Wipe()
	fails("opened")
}
