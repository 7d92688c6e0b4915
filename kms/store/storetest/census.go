package storetest

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
)

// AddKeyring adds the keyring version that the suite's secrets name, where it is
// not there.
func AddKeyring(s kms.ServiceKeys) error {
	err := s.AddKeys(context.Background(), []kms.KeyringVersion{keyringVersion(kms.DefaultKeyring, 1)}, nil, nil)
	if errors.Is(err, kms.ErrExists) {
		return nil
	}
	return err
}

func addVersions(t testing.TB, s Store, versions ...kms.KeyringVersion) {
	t.Helper()
	require.NoError(t, s.AddKeys(context.Background(), versions, nil, nil))
}

// moved is a secret under another keyring version.
func moved(s kms.Secret, version uint32) kms.Secret {
	s.KeyringVersion, s.Wrapped = version, s.Wrapped+"-again"
	return s
}

// retired is a version in a state in which it opens nothing.
func retired(v kms.KeyringVersion, status kms.KeyringStatus) kms.KeyringVersion {
	v.Status, v.Changed, v.ChangedBy = status, Epoch().Add(time.Hour), "operator/alex"
	if status == kms.KeyringScheduled {
		v.DestroyAt = Epoch().Add(30 * 24 * time.Hour)
	}
	return v
}

func stateOfKeyring(t testing.TB, s Store, name string) kms.State {
	t.Helper()
	return stateOf(t, s, kms.Key{Keyring: name})
}

func testKeyringState(t *testing.T, s Store) {
	two, ten, other := keyringVersion("default", 2), keyringVersion("default", 10), keyringVersion("prod", 3)
	put(t, s, kms.Outcome{NewKeyrings: []kms.KeyringVersion{ten, two, other}})
	stored, err := s.Keyrings(context.Background())
	require.NoError(t, err)
	assert.Equal(t, []kms.KeyringVersion{keyringVersion("default", 1), two, ten, other}, stored, "with their wrappers")

	state := stateOfKeyring(t, s, "default")
	bare := func(v kms.KeyringVersion) kms.KeyringVersion { v.Wrappers = nil; return v }
	assert.Equal(t, []kms.KeyringVersion{bare(keyringVersion("default", 1)), bare(two), bare(ten)}, state.Keyring)
	assert.Empty(t, stateOf(t, s, kms.Key{Machine: MachineID(1)}).Keyring, "nobody asked")
	assert.Empty(t, stateOfKeyring(t, s, "none").Keyring)

	off := retired(two, kms.KeyringDisabled)
	put(t, s, kms.Outcome{Keyrings: []kms.KeyringVersion{bare(off)}})
	stored, err = s.Keyrings(context.Background())
	require.NoError(t, err)
	assert.Equal(t, []kms.KeyringVersion{keyringVersion("default", 1), off, ten, other}, stored, "the wrappers stay")
	tombstone := retired(two, kms.KeyringDestroyed)
	put(t, s, kms.Outcome{Keyrings: []kms.KeyringVersion{tombstone}})
	stored, err = s.Keyrings(context.Background())
	require.NoError(t, err)
	assert.Equal(t, []kms.KeyringVersion{keyringVersion("default", 1), bare(tombstone), ten, other}, stored, "erased, and the row stays")
}

func testKeyringConflicts(t *testing.T, s Store) {
	two := keyringVersion("default", 2)
	write := func(o kms.Outcome) error { return s.Transact(context.Background(), kms.Key{}, decideTo(o)) }
	require.NoError(t, write(kms.Outcome{NewKeyrings: []kms.KeyringVersion{two}}))
	assert.ErrorIs(t, write(kms.Outcome{NewKeyrings: []kms.KeyringVersion{keyringVersion("prod", 1), two}}), kms.ErrExists)
	assert.ErrorIs(t, write(kms.Outcome{Keyrings: []kms.KeyringVersion{keyringVersion("default", 3)}}), kms.ErrNotFound)
	assert.ErrorIs(t, write(kms.Outcome{ServiceKeys: []kms.ServiceKey{serviceKey(kms.ServiceKeyCA, "none", Epoch())}}), kms.ErrNotFound)
	assert.Empty(t, stateOfKeyring(t, s, "prod").Keyring, "all or nothing")
}

// Of many who add one version at once, one does.
func testKeyringRace(t *testing.T, s Store) {
	errs := make([]error, callers)
	together(func(n int) {
		errs[n] = s.Transact(context.Background(), kms.Key{Keyring: "default"}, func(state kms.State) (kms.Outcome, error) {
			if len(state.Keyring) > 1 {
				return kms.Outcome{}, kms.ErrExists
			}
			return kms.Outcome{NewKeyrings: []kms.KeyringVersion{keyringVersion("default", 2)}}, nil
		})
	})
	added := 0
	for _, err := range errs {
		if err == nil {
			added++
		} else {
			assert.ErrorIs(t, err, kms.ErrExists)
		}
	}
	assert.Equal(t, 1, added)
}

// What a version opens is stored only while it can be opened.
func testRetiredVersions(t *testing.T, s Store) {
	ctx := context.Background()
	two, system := keyringVersion("default", 2), keyringVersion(kms.SystemKeyring, 1)
	addVersions(t, s, two, system, keyringVersion(kms.SystemKeyring, 2))
	put(t, s, family(1))
	secret, key := NewSecret(VolumeID(2), 1), serviceKey(kms.ServiceKeyCA, "a", Epoch())
	require.NoError(t, s.AddKeys(ctx, nil, []kms.ServiceKey{key}, nil))
	write := func(o kms.Outcome) error { return s.Transact(ctx, kms.Key{}, decideTo(o)) }

	put(t, s, kms.Outcome{Keyrings: []kms.KeyringVersion{retired(two, kms.KeyringDisabled)}})
	require.NoError(t, write(kms.Outcome{Secrets: []kms.Secret{moved(secret, 2)}}), "a disabled version opens")
	require.NoError(t, write(kms.Outcome{Secrets: []kms.Secret{secret}}))
	for _, status := range []kms.KeyringStatus{kms.KeyringScheduled, kms.KeyringDestroyed} {
		put(t, s, kms.Outcome{Keyrings: []kms.KeyringVersion{retired(two, status), retired(keyringVersion(kms.SystemKeyring, 2), status)}})
		assert.ErrorIs(t, write(kms.Outcome{Secrets: []kms.Secret{moved(secret, 2)}}), kms.ErrRetired)
		fresh := moved(secret, 2)
		fresh.Version = 9
		assert.ErrorIs(t, write(kms.Outcome{Secrets: []kms.Secret{fresh}}), kms.ErrRetired)
		onTwo := key
		onTwo.KeyringVersion = 2
		assert.ErrorIs(t, write(kms.Outcome{ServiceKeys: []kms.ServiceKey{onTwo}}), kms.ErrRetired)
		onTwo.ID = "b"
		assert.ErrorIs(t, s.AddKeys(ctx, nil, []kms.ServiceKey{onTwo}, nil), kms.ErrRetired)
	}
	assert.ErrorIs(t, write(kms.Outcome{Secrets: []kms.Secret{moved(secret, 7)}}), kms.ErrRetired, "a version that was never stored")
	assert.Equal(t, family(1).Secrets, stateOf(t, s, kms.Key{Machine: MachineID(1)}).Secrets)
}

// testMovedSecrets rewraps secrets as long as they are what was read.
func testMovedSecrets(t *testing.T, s Store) {
	put(t, s, family(1))
	addVersions(t, s, keyringVersion("prod", 2), retired(keyringVersion("prod", 3), kms.KeyringDestroyed))
	before := stateOf(t, s, kms.Key{Machine: MachineID(1)}).Secrets
	move := func(secret kms.Secret, version uint32) kms.MovedSecret {
		return kms.MovedSecret{
			SecretRef: secret.Ref(), Was: secret.Wrapped, Keyring: "prod", KeyringVersion: version, Wrapped: moved(secret, version).Wrapped,
		}
	}
	write := func(m ...kms.MovedSecret) error {
		return s.Transact(context.Background(), kms.Key{}, func(kms.State) (kms.Outcome, error) { return kms.Outcome{Moved: m}, nil })
	}
	stale, absent := move(before[1], 2), move(before[1], 2)
	stale.Was += "x"
	absent.Version = 9
	for _, m := range []kms.MovedSecret{stale, absent} {
		assert.ErrorIs(t, write(move(before[0], 2), m), kms.ErrChanged)
	}
	assert.ErrorIs(t, write(move(before[0], 2), move(before[1], 3)), kms.ErrRetired)
	assert.Equal(t, before, stateOf(t, s, kms.Key{Machine: MachineID(1)}).Secrets, "all or none")

	require.NoError(t, write(move(before[0], 2)))
	want := slices.Clone(before)
	want[0] = moved(want[0], 2)
	want[0].Keyring = "prod"
	assert.Equal(t, want, stateOf(t, s, kms.Key{Machine: MachineID(1)}).Secrets, "the rest of the row stays")
}

func testNamedServiceKeys(t *testing.T, s Store) {
	key := serviceKey(kms.ServiceKeyCA, "a", Epoch())
	addVersions(t, s, keyringVersion(kms.SystemKeyring, 1), keyringVersion(kms.SystemKeyring, 2))
	require.NoError(t, s.AddKeys(context.Background(), nil, []kms.ServiceKey{key}, nil))
	assert.Equal(t, []kms.ServiceKey{key}, stateOf(t, s, kms.Key{ServiceKeys: true}).ServiceKeys)
	key.KeyringVersion, key.Wrapped = 2, "kw1.system.2.a"
	put(t, s, kms.Outcome{ServiceKeys: []kms.ServiceKey{key}})
	assert.Equal(t, []kms.ServiceKey{key}, stateOf(t, s, kms.Key{ServiceKeys: true}).ServiceKeys)
}

func testSecretsOn(t *testing.T, s Store) {
	addVersions(t, s, keyringVersion("default", 2), keyringVersion("prod", 1))
	put(t, s, family(1))
	put(t, s, family(2))
	put(t, s, kms.Outcome{Secrets: []kms.Secret{moved(NewSecret(VolumeID(2), 2), 2), NewRecoveryKey(VolumeID(3), 1)}})
	var all, paged []kms.BoundSecret
	all, err := s.SecretsOn(context.Background(), "default", 1, kms.SecretRef{}, 100)
	require.NoError(t, err)
	assert.Len(t, all, 6)
	for after := (kms.SecretRef{}); ; {
		page, err := s.SecretsOn(context.Background(), "default", 1, after, 2)
		require.NoError(t, err)
		if len(page) == 0 {
			break
		}
		paged = append(paged, page...)
		after = page[len(page)-1].Ref()
	}
	assert.Equal(t, all, paged, "ordered by volume, purpose and version")
	for _, b := range all {
		owner := NewMachine(1)
		if b.Volume == VolumeID(4) || b.Volume == VolumeID(5) {
			owner = NewMachine(2)
		}
		assert.Equal(t, []any{owner.ID, owner.EK, owner.AK, uint32(1)}, []any{b.Machine, b.EK, b.AK, b.KeyringVersion})
	}
	onTwo, err := s.SecretsOn(context.Background(), "default", 2, kms.SecretRef{}, 100)
	require.NoError(t, err)
	require.Len(t, onTwo, 1)
	assert.Equal(t, moved(NewSecret(VolumeID(2), 2), 2), onTwo[0].Secret)
	none, err := s.SecretsOn(context.Background(), "prod", 1, kms.SecretRef{}, 100)
	require.NoError(t, err)
	assert.Empty(t, none)
}

// The census is what there is, whatever happened.
func testCensus(t *testing.T, s Store) {
	ctx := context.Background()
	addVersions(t, s, keyringVersion("default", 2), keyringVersion(kms.SystemKeyring, 1), keyringVersion(kms.SystemKeyring, 2))
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		n := 1 + random.IntN(4)
		switch random.IntN(8) {
		case 0:
			put(t, s, family(n))
		case 1:
			put(t, s, kms.Outcome{DropMachine: MachineID(n)})
		case 2, 3:
			secrets := stateOf(t, s, kms.Key{Machine: MachineID(n)}).Secrets
			for i := range secrets {
				secrets[i].KeyringVersion = uint32(1 + random.IntN(2))
				secrets[i].Status = []kms.SecretStatus{kms.SecretPending, kms.SecretCurrent}[random.IntN(2)]
			}
			put(t, s, kms.Outcome{Secrets: secrets})
		case 4:
			put(t, s, kms.Outcome{DropVolumes: []string{VolumeID(2 * n)}})
		case 5:
			key := serviceKey(kms.ServiceKeyChallenge, string(rune('a'+n)), Epoch())
			require.NoError(t, s.AddKeys(ctx, nil, []kms.ServiceKey{key}, []kms.ServiceKey{key}))
			key.KeyringVersion = uint32(1 + random.IntN(2))
			put(t, s, kms.Outcome{ServiceKeys: []kms.ServiceKey{key}})
		case 6:
			put(t, s, kms.Outcome{Uses: []kms.KeyringUse{use("default", uint32(1+random.IntN(2)), Epoch(), 1, 1)}})
		case 7:
			for _, u := range stateOfKeyring(t, s, "default").Uses {
				put(t, s, kms.Outcome{Dismissed: []kms.KeyringUse{dismissed(u, Epoch())}})
			}
		}
		RequireCensus(t, s)
	}
}

// RequireCensus compares the census with a count of the rows.
func RequireCensus(t *testing.T, s Store) {
	t.Helper()
	ctx := context.Background()
	want := make(map[kms.Dependents]int64)
	volumes, err := s.Volumes(ctx, "", "", 1000)
	require.NoError(t, err)
	for _, v := range volumes {
		secrets, err := s.Secrets(ctx, v.ID)
		require.NoError(t, err)
		for _, x := range secrets {
			want[kms.Dependents{Keyring: x.Keyring, Version: x.KeyringVersion, Kind: kms.DependentSecret, Purpose: x.Purpose, Status: string(x.Status)}]++
		}
	}
	keys, err := s.ServiceKeys(ctx)
	require.NoError(t, err)
	for _, k := range keys {
		want[kms.Dependents{Keyring: kms.SystemKeyring, Version: k.KeyringVersion, Kind: kms.DependentServiceKey, Purpose: string(k.Kind)}]++
	}
	for _, u := range usesOf(t, s) {
		if u.Dismissed.IsZero() {
			want[kms.Dependents{Keyring: u.Keyring, Version: u.Version, Kind: kms.DependentOutside, Purpose: kms.PurposeApplication}]++
		}
	}
	census, err := s.Dependents(ctx, "")
	require.NoError(t, err)
	got := make(map[kms.Dependents]int64)
	for _, d := range census {
		n := d.Count
		d.Count = 0
		got[d] = n
	}
	require.Equal(t, want, got)
	var inTurn []kms.Dependents
	for _, name := range keyringNames(t, s) {
		one, err := s.Dependents(ctx, name)
		require.NoError(t, err)
		require.Equal(t, stateOfKeyring(t, s, name).Dependents, one)
		inTurn = append(inTurn, one...)
	}
	require.Equal(t, census, inTurn)
}

func keyringNames(t *testing.T, s Store) (names []string) {
	t.Helper()
	versions, err := s.Keyrings(context.Background())
	require.NoError(t, err)
	for _, v := range versions {
		names = append(names, v.Keyring)
	}
	return slices.Compact(names)
}
