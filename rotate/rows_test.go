package rotate_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
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
		ID: volume, Machine: machine, Name: "web-1", Group: "web", Keyring: kms.DefaultKeyring, Created: made, Reencrypted: made.Add(time.Hour), Bytes: 10 << 30, Seen: made.Add(time.Hour),
		Secret:      rotate.Secret{Version: 2, Created: made.Add(time.Minute), Wrapped: first},
		Recovery:    rotate.Secret{Version: 1, Created: made, AtBoot: true, Wrapped: first},
		RestoreOnly: []rotate.Retained{{Secret: rotate.Secret{Version: 1, Created: made, AtBoot: true, Wrapped: first}, Replaced: made.Add(time.Hour)}},
		Wrapped:     []rotate.Versions{first[0], first[0], {Keyring: kms.DefaultKeyring, First: 2, Last: 2}, first[0]},
		Order:       rotate.Order{Kind: rotate.RekeyVolume, Opened: made, From: 2, Attempts: 2}, RestoreUntil: made.Add(4 * time.Hour),
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

// TestAPlanOfWhatMayBeDueIsThePlan plans over all volumes and over those that may be
// due, for many moments.
func TestAPlanOfWhatMayBeDueIsThePlan(t *testing.T) {
	s, made := openStore(t), storetest.Epoch()
	random := rand.New(rand.NewPCG(1, 2))
	hours := func(most int) time.Time { return made.Add(time.Duration(random.IntN(most)) * time.Hour) }
	for n := range 80 {
		m := storetest.NewMachine(n)
		v := storetest.NewVolume(m.ID, n)
		secret := storetest.NewSecret(v.ID, 1)
		secret.Created = hours(24 * 400)
		out := kms.Outcome{Machine: m, Volumes: []kms.Volume{v}, Secrets: []kms.Secret{secret}}
		switch n % 4 {
		case 1:
			kept := secret
			kept.Status, kept.Replaced = kms.SecretRestoreOnly, hours(24*800)
			secret.Version, secret.Created = 2, kept.Replaced
			out.Secrets = []kms.Secret{kept, secret}
		case 3: // rekeyed shortly before a plan is made
			out.Secrets[0].Version, out.Secrets[0].Created = 2, made.Add(time.Duration(n/4*45)*24*time.Hour-time.Minute)
		case 2:
			out.Orders = []kms.Order{{Volume: v.ID, Machine: m.ID, Status: kms.OrderOpen, Created: hours(24 * 800), Faults: n % 3}}
		}
		write(t, s, out)
	}
	policies := make(map[string]*rotate.Policy)
	for name, text := range map[string]string{
		"default": "", "short": "[default]\nsecret_age = \"90d\"\nrate = \"3/h\"\n", "never": "[default]\nsecret_age = \"never\"\n",
		"reencrypts": "[default]\nvolume_key_age = \"365d\"\n",
		"rules":      "[[rule]]\nname = \"a\"\nmachines = [\"web-1*\"]\nsecret_age = \"30d\"\nretain_for_restore = \"60d\"\n",
	} {
		p, err := rotate.Parse([]byte(text))
		require.NoError(t, err)
		policies[name] = p
	}
	for name, p := range policies {
		for days := 0; days < 900; days += 45 {
			now := made.Add(time.Duration(days) * 24 * time.Hour)
			want, err := rotate.Make(rotate.State{Volumes: rotate.Volumes(t.Context(), s, nobody, now, noPause)}, p, now)
			require.NoError(t, err)
			got, err := rotate.Make(rotate.State{Volumes: rotate.VolumesDue(t.Context(), s, p, now, nobody, now, noPause)}, p, now)
			require.NoError(t, err)
			require.Equal(t, want, got, "%s on day %d", name, days)
		}
	}
}
