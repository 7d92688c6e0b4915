package rotate_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/store/sqlite"
	"keywright.dev/kms/store/storetest"
	"keywright.dev/rotate"
)

func openStore(t *testing.T) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Config{
		Path: filepath.Join(t.TempDir(), "store.db"), Clock: time.Now, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	require.NoError(t, storetest.AddKeyring(s))
	return s
}

func write(t *testing.T, s *sqlite.Store, o kms.Outcome) {
	t.Helper()
	require.NoError(t, s.Transact(t.Context(), kms.Key{}, func(kms.State) (kms.Outcome, error) { return o, nil }))
}

func volumesOf(t *testing.T, s *sqlite.Store, waits func(string) bool, now time.Time) (list []rotate.Volume) {
	t.Helper()
	for v, err := range rotate.Volumes(t.Context(), s, waits, now, noPause) {
		require.NoError(t, err)
		list = append(list, v)
	}
	return list
}

func noPause(context.Context) (bool, error) { return false, nil }

func nobody(string) bool { return false }

func TestRowsSayWhatAPlanWants(t *testing.T) {
	s, made := openStore(t), storetest.Epoch()
	machine, volume := storetest.MachineID(1), storetest.VolumeID(2)
	before, current, next := storetest.NewSecret(volume, 1), storetest.NewSecret(volume, 2), storetest.NewSecret(volume, 3)
	before.Status, before.Replaced = kms.SecretRestoreOnly, made.Add(time.Hour)
	current.AtBoot, current.Created = false, made.Add(time.Minute)
	next.Status, next.KeyringVersion = kms.SecretPending, 2
	order := kms.Order{Volume: volume, Machine: machine, Status: kms.OrderOpen, Version: 3, Created: made, Faults: 2, Delivered: made.Add(time.Minute)}
	write(t, s, kms.Outcome{
		NewKeyrings: []kms.KeyringVersion{{Keyring: kms.DefaultKeyring, Version: 2, Status: kms.KeyringEnabled, Created: made}},
		Machine:     storetest.NewMachine(1), Volumes: []kms.Volume{storetest.NewVolume(machine, 2)},
		Secrets: []kms.Secret{before, current, next, storetest.NewRecoveryKey(volume, 1)}, Orders: []kms.Order{order},
	})
	first := []rotate.Versions{{Keyring: kms.DefaultKeyring, First: 1, Last: 1}}
	want := rotate.Volume{
		ID: volume, Machine: machine, Name: "web-1", Group: "web", Keyring: kms.DefaultKeyring, Created: made, Reencrypted: made.Add(time.Hour), Seen: made.Add(time.Hour),
		Secret:      rotate.Secret{Version: 2, Created: made.Add(time.Minute), Wrapped: first},
		Recovery:    rotate.Secret{Version: 1, Created: made, AtBoot: true, Wrapped: first},
		RestoreOnly: []rotate.Retained{{Secret: rotate.Secret{Version: 1, Created: made, AtBoot: true, Wrapped: first}, Replaced: made.Add(time.Hour)}},
		Wrapped:     []rotate.Versions{first[0], first[0], {Keyring: kms.DefaultKeyring, First: 2, Last: 2}, first[0]},
		Order:       rotate.Order{Kind: rotate.RekeyVolume, Opened: made, From: 2, Attempts: 2},
	}
	late := made.Add(24 * time.Hour)
	assert.Equal(t, []rotate.Volume{want}, volumesOf(t, s, nobody, late))
	want.Connected = true
	assert.Equal(t, []rotate.Volume{want}, volumesOf(t, s, func(id string) bool { return id == machine }, late), "its agent waits")
	assert.Equal(t, []rotate.Volume{want}, volumesOf(t, s, nobody, made.Add(2*time.Minute)), "its agent is at work")

	order.From = 1
	write(t, s, kms.Outcome{Orders: []kms.Order{order}})
	assert.EqualValues(t, 1, volumesOf(t, s, nobody, late)[0].Order.From, "what a restored disk is opened with")

	reencryption := order
	reencryption.From, reencryption.Kind, reencryption.Status, reencryption.Progress.At = 0, kms.KindReencrypt, kms.OrderReencrypting, late.Add(-time.Minute)
	write(t, s, kms.Outcome{Orders: []kms.Order{reencryption}})
	under := volumesOf(t, s, nobody, late)[0]
	assert.Equal(t, rotate.ReencryptVolume, under.Order.Kind)
	assert.True(t, under.Connected, "it reported progress")

	order.From, order.Status, order.AtBoot = 0, kms.OrderCommitted, true
	current.Status, next.Status = kms.SecretRestoreOnly, kms.SecretCurrent
	write(t, s, kms.Outcome{Orders: []kms.Order{order}, Secrets: []kms.Secret{current, next}})
	got := volumesOf(t, s, nobody, made.Add(2*time.Minute))
	assert.EqualValues(t, 3, got[0].Secret.Version)
	assert.EqualValues(t, 2, got[0].Order.From, "its keyslot may be there still")
	assert.False(t, got[0].Connected, "a boot carries it out, and no agent")
}

// TestPagesOfVolumesAreOnePlan has more volumes than a page, and those left out that
// no plan is for.
func TestPagesOfVolumesAreOnePlan(t *testing.T) {
	s := openStore(t)
	for n := range 300 {
		m := storetest.NewMachine(n)
		one, two := storetest.NewVolume(m.ID, 2*n), storetest.NewVolume(m.ID, 2*n+1)
		switch n {
		case 0:
			m.Status = kms.MachineRevoked
		case 1:
			one.Status = kms.VolumeFormer
		}
		write(t, s, kms.Outcome{Machine: m, Volumes: []kms.Volume{one, two}, Secrets: []kms.Secret{storetest.NewSecret(one.ID, 1), storetest.NewSecret(two.ID, 1)}})
	}
	pages := 0
	seen := make(map[string]bool)
	last := ""
	for v, err := range rotate.Volumes(t.Context(), s, nobody, time.Now(), func(context.Context) (bool, error) { pages++; return false, nil }) {
		require.NoError(t, err)
		assert.Less(t, last, v.ID)
		last, seen[v.ID] = v.ID, true
	}
	assert.Len(t, seen, 597)
	assert.Equal(t, 2, pages)
	assert.NotContains(t, seen, storetest.VolumeID(0), "of a machine that is revoked")
	assert.NotContains(t, seen, storetest.VolumeID(2), "a former one")

	gone := errors.New("gone")
	for _, err := range rotate.Volumes(t.Context(), s, nobody, time.Now(), func(context.Context) (bool, error) { return false, gone }) {
		require.ErrorIs(t, err, gone)
	}
}

// BenchmarkPlanOfRows plans over volumes in a store on disk.
func BenchmarkPlanOfRows(b *testing.B) {
	const machines = 20_000
	s, err := sqlite.Open(b.Context(), sqlite.Config{Path: filepath.Join(b.TempDir(), "store.db"), Clock: time.Now, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, s.Close()) })
	require.NoError(b, storetest.AddKeyring(s))
	done := make(chan error, 64)
	for part := range 64 {
		go func() {
			for n := part; n < machines; n += 64 {
				m := storetest.NewMachine(n)
				o := kms.Outcome{Machine: m}
				for i := 2 * n; i < 2*n+2; i++ {
					o.Volumes = append(o.Volumes, storetest.NewVolume(m.ID, i))
					o.Secrets = append(o.Secrets, storetest.NewSecret(storetest.VolumeID(i), 1), storetest.NewRecoveryKey(storetest.VolumeID(i), 1))
				}
				if err := s.Transact(context.Background(), kms.Key{}, func(kms.State) (kms.Outcome, error) { return o, nil }); err != nil {
					done <- fmt.Errorf("enrolling: %w", err)
					return
				}
			}
			done <- nil
		}()
	}
	for range 64 {
		require.NoError(b, <-done)
	}
	now := storetest.Epoch().AddDate(2, 0, 0)
	b.ReportAllocs()
	for b.Loop() {
		plan, err := rotate.Make(rotate.State{Volumes: rotate.Volumes(context.Background(), s, nobody, now, noPause)}, rotate.Default(), now)
		require.NoError(b, err)
		require.EqualValues(b, 2*machines, plan.Overdue.Count)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(2*machines), "ns/volume")
}
