package storetest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
)

func keyringVersion(name string, version uint32) kms.KeyringVersion {
	return kms.KeyringVersion{
		Keyring: name, Version: version, Status: kms.KeyringEnabled, Created: Epoch(),
		Changed: Epoch().Add(time.Minute), ChangedBy: "operator/uid/0",
		Wrappers: []kms.Wrapper{{Root: "file:root.key", Wrapped: []byte("f")}, {Root: "vault:prod", Version: "3", Wrapped: []byte("v")}},
	}
}

func serviceKey(kind kms.ServiceKeyKind, id string, created time.Time) kms.ServiceKey {
	return kms.ServiceKey{Kind: kind, ID: id, Public: []byte("public " + id), KeyringVersion: 1, Wrapped: "kw1.system.1." + id, Created: created}
}

func testKeyrings(t *testing.T, s Store) {
	none, err := s.Keyrings(context.Background())
	require.NoError(t, err)
	assert.Empty(t, none)
	system, one, two, ten := keyringVersion("system", 1), keyringVersion("default", 1), keyringVersion("default", 2), keyringVersion("default", 10)
	two.Wrappers = nil
	two.Status, two.DestroyAt = kms.KeyringScheduled, Epoch().Add(30*24*time.Hour)
	require.NoError(t, s.AddKeys(context.Background(), []kms.KeyringVersion{ten, system, two, one}, nil, nil))
	got, err := s.Keyrings(context.Background())
	require.NoError(t, err)
	assert.Equal(t, []kms.KeyringVersion{one, two, ten, system}, got, "ordered by keyring and version, wrappers by root")
}

func testServiceKeys(t *testing.T, s Store) {
	older, newer := serviceKey(kms.ServiceKeyLog, "z", Epoch()), serviceKey(kms.ServiceKeyLog, "a", Epoch().Add(time.Microsecond))
	mac := serviceKey(kms.ServiceKeyChallenge, "a", Epoch())
	mac.Public = nil
	addVersions(t, s, keyringVersion(kms.SystemKeyring, 1))
	require.NoError(t, s.AddKeys(context.Background(), nil, []kms.ServiceKey{newer, older, mac}, nil))
	got, err := s.ServiceKeys(context.Background())
	require.NoError(t, err)
	assert.Equal(t, []kms.ServiceKey{mac, older, newer}, got, "ordered by kind and creation")
}

func testKeysExist(t *testing.T, s Store) {
	version, key := keyringVersion("system", 1), serviceKey(kms.ServiceKeyCA, "a", Epoch())
	require.NoError(t, s.AddKeys(context.Background(), []kms.KeyringVersion{version}, []kms.ServiceKey{key}, nil))
	fresh, freshKey := keyringVersion("system", 2), serviceKey(kms.ServiceKeyCA, "b", Epoch())
	assert.ErrorIs(t, s.AddKeys(context.Background(), []kms.KeyringVersion{fresh, version}, nil, nil), kms.ErrExists)
	assert.ErrorIs(t, s.AddKeys(context.Background(), []kms.KeyringVersion{fresh}, []kms.ServiceKey{freshKey, key}, nil), kms.ErrExists)
	assert.ErrorIs(t, s.AddKeys(context.Background(), nil, []kms.ServiceKey{freshKey, freshKey}, []kms.ServiceKey{key}), kms.ErrExists)

	versions, err := s.Keyrings(context.Background())
	require.NoError(t, err)
	assert.Equal(t, []kms.KeyringVersion{keyringVersion(kms.DefaultKeyring, 1), version}, versions, "all or nothing")
	keys, err := s.ServiceKeys(context.Background())
	require.NoError(t, err)
	assert.Equal(t, []kms.ServiceKey{key}, keys)
}

func testReplaceServiceKey(t *testing.T, s Store) {
	old, same, next := serviceKey(kms.ServiceKeyChallenge, "a", Epoch()), serviceKey(kms.ServiceKeyIdentity, "a", Epoch()), serviceKey(kms.ServiceKeyChallenge, "b", Epoch())
	addVersions(t, s, keyringVersion(kms.SystemKeyring, 1))
	require.NoError(t, s.AddKeys(context.Background(), nil, []kms.ServiceKey{old, same}, nil))
	require.NoError(t, s.AddKeys(context.Background(), nil, []kms.ServiceKey{next}, []kms.ServiceKey{old}))
	got, err := s.ServiceKeys(context.Background())
	require.NoError(t, err)
	assert.Equal(t, []kms.ServiceKey{next, same}, got, "the id of another kind stays")
}

// Wrappers come and go one by one, and whoever decides about them sees all.
func testWrappers(t *testing.T, s Store) {
	version := keyringVersion("extra", 1)
	require.NoError(t, s.AddKeys(context.Background(), []kms.KeyringVersion{version}, nil, nil))
	again := kms.Wrapper{Root: "vault:prod", Version: "4", Wrapped: []byte("w")}
	other := kms.Wrapper{Root: "awskms:key", Wrapped: []byte("a")}
	put(t, s, kms.Outcome{
		DropWrappers: []kms.VersionWrapper{{Keyring: "extra", Version: 1, Wrapper: kms.Wrapper{Root: "file:root.key"}}, {Keyring: "none", Version: 7}},
		Wrappers:     []kms.VersionWrapper{{Keyring: "extra", Version: 1, Wrapper: again}, {Keyring: "extra", Version: 1, Wrapper: other}},
	})
	version.Wrappers = []kms.Wrapper{other, again}
	got := stateOf(t, s, kms.Key{Keyrings: true})
	assert.Contains(t, got.Keyrings, version)
	assert.Empty(t, stateOf(t, s, kms.Key{}).Keyrings)
	require.Error(t, s.Transact(context.Background(), kms.Key{}, decideTo(kms.Outcome{
		Wrappers: []kms.VersionWrapper{{Keyring: "extra", Version: 2, Wrapper: other}},
	})), "of a version that is not there")
}

// Every decision learns how often leases were dropped.
func testLeaseEpoch(t *testing.T, s Store) {
	put(t, s, family(1))
	keys := []kms.Key{{}, {Machine: MachineID(1)}, {Machine: MachineID(2)}, {Keyrings: true}}
	for epoch := range uint64(3) {
		for _, key := range keys {
			assert.Equal(t, epoch, stateOf(t, s, key).LeaseEpoch)
		}
		read, err := s.LeaseEpoch(context.Background())
		require.NoError(t, err)
		assert.Equal(t, epoch, read)
		put(t, s, kms.Outcome{DropLeases: true})
	}
}
