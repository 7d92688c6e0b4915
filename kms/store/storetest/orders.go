package storetest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
)

// newOrder returns an order of a volume; every field has a value.
func newOrder(machine, volume string) kms.Order {
	return kms.Order{
		Volume: volume, Machine: machine, Kind: kms.KindReencrypt, Status: kms.OrderOpen, AtBoot: true, From: 1, Version: 3, Withdrawn: 2, Reason: "age",
		Created: Epoch(), By: "operator/alex", Deliveries: 2, Delivered: Epoch().Add(time.Minute),
		Fault: "no space", Faults: 1, Reported: Epoch().Add(time.Hour),
		HeaderKept: Epoch().Add(time.Second),
		Lost:       []kms.Keyslot{{ID: 3, KDF: "argon2id", Priority: 1, Mark: "5f1a03c2"}}, Agreed: true, Becomes: []byte{1, 2, 3},
		Progress: kms.Progress{Done: 1 << 40, Total: 1 << 41, Rate: 7, Left: time.Minute, At: Epoch().Add(2 * time.Hour)},
	}
}

func testOrders(t *testing.T, s Store) {
	put(t, s, family(1))
	one, two := newOrder(MachineID(1), VolumeID(2)), newOrder(MachineID(1), VolumeID(3))
	if two.Volume < one.Volume {
		one, two = two, one
	}
	put(t, s, kms.Outcome{Orders: []kms.Order{two, one}})
	assert.Equal(t, []kms.Order{one, two}, stateOf(t, s, kms.Key{Machine: MachineID(1)}).Orders, "ordered by volume")
	assert.Equal(t, []kms.Order{one}, ordersAfter(t, s, "", 1))
	assert.Equal(t, []kms.Order{two}, ordersAfter(t, s, one.Volume, 9))

	own, err := s.OrdersOf(context.Background(), MachineID(1))
	require.NoError(t, err)
	assert.Equal(t, []kms.Order{one, two}, own)
	own, err = s.OrdersOf(context.Background(), MachineID(2))
	require.NoError(t, err)
	assert.Empty(t, own)

	one.Status, one.AtBoot, one.Fault = kms.OrderCommitted, false, ""
	one.Kind, one.Lost, one.Agreed, one.Becomes, one.Progress = kms.KindRekey, nil, false, nil, kms.Progress{}
	put(t, s, kms.Outcome{Orders: []kms.Order{one}, DropOrders: []string{two.Volume}})
	assert.Equal(t, []kms.Order{one}, ordersAfter(t, s, "", 9), "one a volume")

	err = s.Transact(context.Background(), kms.Key{}, func(kms.State) (kms.Outcome, error) {
		return kms.Outcome{Orders: []kms.Order{newOrder(MachineID(1), VolumeID(9))}}, nil
	})
	require.ErrorIs(t, err, kms.ErrNotFound)
	put(t, s, kms.Outcome{DropVolumes: []string{one.Volume}})
	assert.Empty(t, ordersAfter(t, s, "", 9), "an order goes with its volume")
}

func ordersAfter(t *testing.T, s Store, after string, limit int) []kms.Order {
	t.Helper()
	orders, err := s.Orders(context.Background(), after, limit)
	require.NoError(t, err)
	return orders
}

func testDroppedSecrets(t *testing.T, s Store) {
	put(t, s, family(1))
	before := stateOf(t, s, kms.Key{Machine: MachineID(1)}).Secrets
	put(t, s, kms.Outcome{DropSecrets: []kms.SecretRef{before[0].Ref(), {Volume: VolumeID(9), Purpose: kms.PurposeKeyslot, Version: 1}}})
	assert.Equal(t, before[1:], stateOf(t, s, kms.Key{Machine: MachineID(1)}).Secrets)
	counts, err := s.Dependents(context.Background(), kms.DefaultKeyring)
	require.NoError(t, err)
	var n int64
	for _, c := range counts {
		n += c.Count
	}
	assert.Equal(t, int64(len(before)-1), n, "the census follows")
}

func testHeaderCopies(t *testing.T, s Store) {
	put(t, s, family(1))
	ctx, volume := context.Background(), VolumeID(2)
	_, err := s.HeaderCopy(ctx, volume)
	require.ErrorIs(t, err, kms.ErrNotFound)
	kept := kms.HeaderCopy{Volume: volume, Version: 2, Created: Epoch(), Sealed: []byte("sealed")}
	err = s.Transact(ctx, kms.Key{}, func(kms.State) (kms.Outcome, error) { return kms.Outcome{HeaderCopy: &kept}, nil })
	require.ErrorIs(t, err, kms.ErrNotFound, "a copy that nothing opens")

	key := NewSecret(volume, 2)
	key.Purpose = kms.PurposeHeader
	put(t, s, kms.Outcome{Secrets: []kms.Secret{key}, HeaderCopy: &kept})
	assert.Contains(t, stateOf(t, s, kms.Key{Machine: MachineID(1)}).Secrets, key)
	again := kept
	again.Created, again.Sealed = Epoch().Add(time.Minute), []byte("another")
	for _, want := range []kms.HeaderCopy{kept, again} {
		put(t, s, kms.Outcome{HeaderCopy: &want})
		found, err := s.HeaderCopy(ctx, volume)
		require.NoError(t, err)
		assert.Equal(t, want, *found)
	}
	key.Wrapped += "w"
	put(t, s, kms.Outcome{Secrets: []kms.Secret{key}})
	_, err = s.HeaderCopy(ctx, volume)
	require.NoError(t, err, "another wrapping is no other key")
	put(t, s, kms.Outcome{DropSecrets: []kms.SecretRef{key.Ref()}})
	_, err = s.HeaderCopy(ctx, volume)
	require.ErrorIs(t, err, kms.ErrNotFound, "a copy goes with its key")
}
