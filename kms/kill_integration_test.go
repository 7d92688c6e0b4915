//go:build integration

package kms_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/audit"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/policy"
	"keywright.dev/kms/root"
	"keywright.dev/kms/root/file"
	"keywright.dev/kms/secret"
	"keywright.dev/kms/store/sqlite"
	"keywright.dev/test/kill"
)

func TestMain(m *testing.M) {
	works := map[string]kill.Work{"replace root": replaceRoot, "first start": firstStart, "serve": serveMachine}
	for name, act := range keyringActs() {
		works[name] = act.work
	}
	kill.Main(m, works)
}

// installation is the domain over a folder that outlives the process: a store, root
// keys, and in the store the service's own keys.
type installation struct {
	*kms.Service
	store killedStore
	clock *clock
}

// openIn opens a folder with roots of these names, with points at each of their
// calls and in each transaction of the store.
func openIn(folder string, at *kill.Countdown, names ...string) (in *installation, err error) {
	ctx := context.Background()
	in = &installation{clock: &clock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}}
	var roots []root.Root
	for _, name := range names {
		r, err := file.Open(filepath.Join(folder, name))
		if err != nil {
			return nil, err
		}
		roots = append(roots, kill.Root(r, at))
	}
	store, err := sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(folder, "store.db"), Clock: in.clock.Now})
	if err != nil {
		return nil, err
	}
	in.store = killedStore{store, at}
	if in.Service, err = in.service(ctx, roots); err != nil {
		_ = store.Close()
		return nil, err
	}
	return in, nil
}

func (in *installation) service(ctx context.Context, roots []root.Root) (*kms.Service, error) {
	keys, err := kms.OpenKeys(ctx, kms.KeysConfig{
		Store: in.store, Roots: roots, Clock: in.clock.Now, Uptime: func() time.Duration { return 0 }, Random: rand.Reader,
	})
	if err != nil {
		return nil, err
	}
	c := kms.Config{
		Store: in.store, Keys: keys, Clock: in.clock.Now, Random: rand.Reader,
		Trust: func(exchange.EK, []byte, time.Time) (string, error) { return kms.TrustByPerson, nil },
	}
	if c.Challenges, err = kms.OpenChallenges(ctx, keys, in.clock.Now, rand.Reader); err != nil {
		return nil, err
	}
	if c.Identities, err = kms.OpenIdentities(ctx, keys, identityMaker()); err != nil {
		return nil, err
	}
	if c.Log, err = storedLog(ctx, keys); err != nil {
		return nil, err
	}
	documents, err := policy.Shipped()
	if err != nil {
		return nil, err
	}
	engine, err := policy.New(documents...)
	if err != nil {
		return nil, err
	}
	c.Policy = func() kms.Policy { return engine }
	return kms.New(c)
}

func storedLog(ctx context.Context, keys *kms.Keys) (*audit.Signer, error) {
	const origin = "keywright.test/log"
	_, seed, err := keys.ServiceKey(ctx, kms.ServiceKeyLog, func() (string, []byte, secret.Bytes, error) {
		seed, err := secret.Random(rand.Reader, ed25519.SeedSize)
		return origin, nil, seed, err
	})
	if err != nil {
		return nil, err
	}
	return audit.NewSigner(origin, ed25519.NewKeyFromSeed(seed.Expose()))
}

// doIn opens a folder and does something in it.
func doIn(folder string, at *kill.Countdown, do func(context.Context, *installation) error, names ...string) error {
	in, err := openIn(folder, at, names...)
	if err != nil {
		return err
	}
	return errors.Join(do(context.Background(), in), in.store.Close())
}

// killedStore is a store with points around each change: before it, once it is
// decided and not durable, and when it is durable and nobody knows yet.
type killedStore struct {
	*sqlite.Store
	at *kill.Countdown
}

func (s killedStore) Transact(ctx context.Context, key kms.Key, decide func(kms.State) (kms.Outcome, error)) error {
	s.at.Point()
	defer s.at.Point()
	return s.Store.Transact(ctx, key, func(state kms.State) (kms.Outcome, error) {
		defer s.at.Point()
		return decide(state)
	})
}

func (s killedStore) AddKeys(ctx context.Context, versions []kms.KeyringVersion, keys, drop []kms.ServiceKey) error {
	s.at.Point()
	defer s.at.Point()
	return s.Store.AddKeys(ctx, versions, keys, drop)
}

// mustOpen opens a folder by every root that it is given, and holds that each
// keyring version opens.
func mustOpen(t *testing.T, folder string, names ...string) *installation {
	t.Helper()
	in, err := openIn(folder, nil, names...)
	require.NoError(t, err)
	for _, l := range in.Keys.Leases() {
		require.NoError(t, l.Err)
		require.Positive(t, l.Left, "%s@%d opens", l.Keyring, l.Version)
	}
	return in
}

func (in *installation) close(t *testing.T) {
	t.Helper()
	in.Keys.Wipe()
	require.NoError(t, in.store.Close())
}

// rootsIn makes a folder with two root keys.
func rootsIn(t *testing.T) (folder string) {
	t.Helper()
	folder = t.TempDir()
	for _, name := range []string{"a", "b"} {
		require.NoError(t, file.Create(filepath.Join(folder, name), rand.Reader))
	}
	return folder
}

// firstStart makes the store, the keyrings and the service's keys.
func firstStart(folder string, at *kill.Countdown) error {
	at.Begin()
	return doIn(folder, at, func(context.Context, *installation) error { return nil }, "a", "b")
}

func TestFirstStartSurvivesKills(t *testing.T) {
	killed := kill.AtEachPoint(t, "first start", rootsIn(t), func(folder string) {
		require.NoError(t, firstStart(folder, nil), "another start finishes")
		for _, name := range []string{"a", "b"} {
			in := mustOpen(t, folder, name)
			require.Len(t, in.Keys.Leases(), versions)
			in.close(t)
		}
	})
	require.Equal(t, versions*2*2*2+2+3*2, killed, "each root wraps and reads back; the keyrings are stored, and three keys of the service")
}

// replaceRoot rewraps everything by root b of a folder and removes root a.
func replaceRoot(folder string, at *kill.Countdown) error {
	at.Begin()
	a, err := file.Open(filepath.Join(folder, "a"))
	if err == nil {
		err = doIn(folder, at, rewrapRoots, "a", "b")
	}
	if err != nil {
		return err
	}
	return doIn(folder, at, func(ctx context.Context, in *installation) error {
		_, err := in.RemoveRoot(ctx, operator(), a.URI())
		return err
	}, "b")
}

func rewrapRoots(ctx context.Context, in *installation) error {
	_, failures, err := in.RewrapRoots(ctx, operator())
	if err == nil && len(failures) > 0 {
		err = failures[0].Err
	}
	return err
}

// A process that dies at any call of a root, or in any transaction, leaves a store
// that a root opens, and another run finishes.
func TestReplacingARootSurvivesKills(t *testing.T) {
	pristine := rootsIn(t)
	in, err := openIn(pristine, nil, "a")
	require.NoError(t, err)
	in.close(t)
	killed := kill.AtEachPoint(t, "replace root", pristine, func(folder string) {
		in := mustOpen(t, folder, "a", "b")
		in.close(t)
		require.NoError(t, replaceRoot(folder, nil), "another run finishes")
		alone := mustOpen(t, folder, "b")
		defer alone.close(t)
		states, err := alone.Roots(t.Context())
		require.NoError(t, err)
		uri := alone.Keys.Roots[0].URI()
		require.Equal(t, []kms.RootState{{URI: uri, Configured: true, Wraps: versions, Versions: versions}}, states)
	})
	require.GreaterOrEqual(t, killed, 2*(2+4+1+versions)+3*(versions+1),
		"opening, rewrapping, opening again, and a witness for each; a transaction for each wrapper and one that removes")
}
