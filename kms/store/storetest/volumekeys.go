package storetest

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
)

func testVolumeKeys(t *testing.T, s Store) {
	put(t, s, family(1))
	put(t, s, family(2))
	order := newOrder(MachineID(2), VolumeID(4))
	put(t, s, kms.Outcome{
		Orders: []kms.Order{order}, Secrets: []kms.Secret{NewRecoveryKey(VolumeID(4), 1)},
		Machine: &kms.Machine{ID: MachineID(3), Status: kms.MachinePending, AKName: []byte{1}},
		Volumes: []kms.Volume{{ID: VolumeID(6), Machine: MachineID(3), UUID: "6", Status: kms.VolumePending, Keyring: kms.DefaultKeyring}},
	})

	var all []kms.VolumeKeys
	for after := ""; ; {
		page, err := s.VolumeKeys(context.Background(), after, 2)
		require.NoError(t, err)
		if len(page) == 0 {
			break
		}
		assert.LessOrEqual(t, len(page), 2)
		all, after = append(all, page...), page[len(page)-1].ID
	}
	whole, err := s.VolumeKeys(context.Background(), "", 9)
	require.NoError(t, err)
	assert.Equal(t, whole, all, "pages are the whole, in parts")
	require.Len(t, all, 5)
	assert.IsIncreasing(t, []string{all[0].ID, all[1].ID, all[2].ID, all[3].ID, all[4].ID})

	byID := make(map[string]kms.VolumeKeys)
	for _, v := range all {
		byID[v.ID] = v
	}
	wrapped := []kms.KeyringRange{{Keyring: kms.DefaultKeyring, First: 1, Last: 1}}
	history := func(purpose string, version uint32) kms.SecretHistory {
		return kms.SecretHistory{
			Purpose: purpose, Version: version, Status: kms.SecretCurrent, Created: Epoch(), Replaced: Epoch().Add(time.Hour),
			AtBoot: true, Wrapped: wrapped,
		}
	}
	assert.Equal(t, kms.VolumeKeys{
		ID: VolumeID(4), Status: kms.VolumeActive, Keyring: kms.DefaultKeyring, Created: Epoch(), Reencrypted: Epoch().Add(time.Hour), Size: 10 << 30,
		Machine: MachineID(2), Name: "web-2", Group: "web", MachineStatus: kms.MachineActive, Released: Epoch().Add(time.Hour), RestoreUntil: Epoch().Add(4 * time.Hour),
		Secrets: []kms.SecretHistory{history(kms.PurposeKeyslot, 1), history(kms.PurposeKeyslot, 2), history(kms.PurposeRecovery, 1)},
		Order:   &order,
	}, byID[VolumeID(4)])
	assert.Equal(t, kms.VolumeKeys{
		ID: VolumeID(6), Status: kms.VolumePending, Keyring: kms.DefaultKeyring, Machine: MachineID(3), MachineStatus: kms.MachinePending,
	}, byID[VolumeID(6)], "neither secrets nor orders")
	assert.Nil(t, byID[VolumeID(5)].Order)
	assert.Len(t, byID[VolumeID(5)].Secrets, 1)
}

func testVolumesToPlan(t *testing.T, s Store) {
	ctx, made := context.Background(), Epoch()
	put(t, s, family(1)) // of which all secrets were made at the epoch
	put(t, s, family(2))
	young, kept := NewSecret(VolumeID(4), 2), NewSecret(VolumeID(4), 1)
	young.Created = made.Add(time.Hour)
	kept.Status, kept.Replaced = kms.SecretRestoreOnly, made.Add(time.Hour)
	pending := NewSecret(VolumeID(5), 2)
	pending.Status = kms.SecretPending
	former := NewRecoveryKey(VolumeID(5), 1) // a reencryption replaced it: it is kept, and nothing of it is ever due
	former.Status, former.Replaced = kms.SecretRestoreOnly, kept.Replaced
	put(t, s, kms.Outcome{Secrets: []kms.Secret{young, kept, pending, former}})
	never, moment := time.Time{}, time.Microsecond
	picked := func(which kms.ToPlan) []string {
		ids, err := s.VolumesToPlan(ctx, which, 100)
		require.NoError(t, err)
		slices.Sort(ids)
		return slices.Compact(ids)
	}
	ids := func(n ...int) (list []string) {
		for _, n := range n {
			list = append(list, VolumeID(n))
		}
		slices.Sort(list)
		return list
	}
	assert.Equal(t, ids(2, 3, 5), picked(kms.ToPlan{Made: made, Begun: young.Created}))
	assert.Empty(t, picked(kms.ToPlan{Made: made.Add(-moment), Begun: young.Created}))
	assert.Equal(t, ids(4), picked(kms.ToPlan{Made: never, Begun: young.Created.Add(-moment)}))
	assert.Equal(t, ids(4), picked(kms.ToPlan{Begun: young.Created, Replaced: kept.Replaced}))
	assert.Empty(t, picked(kms.ToPlan{Begun: young.Created, Replaced: kept.Replaced.Add(-moment)}))
	put(t, s, kms.Outcome{Orders: []kms.Order{newOrder(MachineID(1), VolumeID(3))}})
	assert.Equal(t, ids(3), picked(kms.ToPlan{Begun: young.Created}))
	some, err := s.VolumesToPlan(ctx, kms.ToPlan{Made: young.Created}, 2)
	require.NoError(t, err)
	assert.Len(t, some, 2)

	whole, err := s.VolumeKeys(ctx, "", 9)
	require.NoError(t, err)
	all := ids(2, 3, 4, 5)
	got, err := s.VolumeKeysOf(ctx, append(all, "nobody's"))
	require.NoError(t, err)
	assert.Equal(t, whole, got)
	got, err = s.VolumeKeysOf(ctx, all[1:2])
	require.NoError(t, err)
	assert.Equal(t, whole[1:2], got)
	got, err = s.VolumeKeysOf(ctx, nil)
	require.NoError(t, err)
	assert.Empty(t, got)
}

// Every way in which a secret comes under another version, or goes, leaves behind
// what wrapped it.
func testWrappedEver(t *testing.T, s Store) {
	put(t, s, kms.Outcome{NewKeyrings: []kms.KeyringVersion{
		keyringVersion(kms.DefaultKeyring, 2), keyringVersion(kms.DefaultKeyring, 3), keyringVersion("prod", 1), keyringVersion("prod", 2),
	}})
	put(t, s, family(1))
	secret := NewSecret(VolumeID(3), 1)
	move := func(keyring string, version uint32) {
		put(t, s, kms.Outcome{Moved: []kms.MovedSecret{{
			SecretRef: secret.Ref(), Was: secret.Wrapped, Keyring: keyring, KeyringVersion: version, Wrapped: secret.Wrapped,
		}}})
	}
	type ranges = []kms.KeyringRange
	assert.Equal(t, ranges{{Keyring: "default", First: 1, Last: 1}}, historyOf(t, s, VolumeID(3)))
	move(kms.DefaultKeyring, 3)
	assert.Equal(t, ranges{{Keyring: "default", First: 1, Last: 3}}, historyOf(t, s, VolumeID(3)), "rewrapped")
	move(kms.DefaultKeyring, 2)
	assert.Equal(t, ranges{{Keyring: "default", First: 1, Last: 3}}, historyOf(t, s, VolumeID(3)), "rewrapped to one before")
	move("prod", 1)
	assert.Equal(t, ranges{{Keyring: "default", First: 1, Last: 3}, {Keyring: "prod", First: 1, Last: 1}}, historyOf(t, s, VolumeID(3)), "assigned")
	for range 3 {
		move(kms.DefaultKeyring, 2)
		move("prod", 1)
	}
	assert.Equal(t, ranges{
		{Keyring: "default", First: 1, Last: 3}, {Keyring: "prod", First: 1, Last: 1}, {Keyring: "default", First: 2, Last: 2}, {Keyring: "prod", First: 1, Last: 1},
	}, historyOf(t, s, VolumeID(3)), "to and fro is not noted for ever")

	secret.Keyring, secret.KeyringVersion, secret.Status = "prod", 2, kms.SecretRestoreOnly
	put(t, s, kms.Outcome{Secrets: []kms.Secret{secret}})
	got := historyOf(t, s, VolumeID(3))
	assert.Equal(t, kms.KeyringRange{Keyring: "prod", First: 1, Last: 2}, got[len(got)-1], "replaced as a row")

	put(t, s, kms.Outcome{DropSecrets: []kms.SecretRef{secret.Ref()}})
	v := keysOf(t, s, VolumeID(3))
	assert.Empty(t, v.Secrets)
	assert.Equal(t, got, v.Wrapped, "the volume keeps what a secret leaves behind")
	put(t, s, kms.Outcome{Volumes: []kms.Volume{NewVolume(MachineID(1), 3)}})
	assert.Equal(t, got, keysOf(t, s, VolumeID(3)).Wrapped, "whatever else changes")

	put(t, s, kms.Outcome{DropVolumes: []string{VolumeID(3)}})
	put(t, s, kms.Outcome{Volumes: []kms.Volume{NewVolume(MachineID(1), 3)}})
	assert.Empty(t, keysOf(t, s, VolumeID(3)).Wrapped, "it goes with the volume")
	put(t, s, kms.Outcome{DropMachine: MachineID(1)})
}

func keysOf(t *testing.T, s Store, volume string) kms.VolumeKeys {
	t.Helper()
	list, err := s.VolumeKeys(context.Background(), "", 9)
	require.NoError(t, err)
	for _, v := range list {
		if v.ID == volume {
			return v
		}
	}
	t.Fatalf("there is no volume %s", volume)
	return kms.VolumeKeys{}
}

func historyOf(t *testing.T, s Store, volume string) []kms.KeyringRange {
	t.Helper()
	v := keysOf(t, s, volume)
	require.Len(t, v.Secrets, 1)
	return v.Secrets[0].Wrapped
}
