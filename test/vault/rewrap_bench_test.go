package vault

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/audit"
	"keywright.dev/kms/envelope"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/root"
	"keywright.dev/kms/root/file"
	"keywright.dev/kms/secret"
	"keywright.dev/kms/store/sqlite"
	"keywright.dev/kms/store/storetest"
	"keywright.dev/test/sim"
)

const (
	fleetSecrets     = 1_000_000
	volumesOfMachine = 10 // with a keyslot's secret and a recovery key each
	secretsOfMachine = 2 * volumesOfMachine
	// turn is how many pages one side does before it is the other's turn.
	turn = 20
)

// BenchmarkRewrap moves every secret of a store, on disk, to a new version of its
// keyring, and has Transit rewrap as many, turn and turn about. x-transit is the
// processor's time for one of ours, read from the store, rewrapped, opened again
// and committed with its audit entries, over Transit's for one, which is from one
// JSON text in memory to another.
func BenchmarkRewrap(b *testing.B) {
	secrets := fleetSecrets
	if testing.Short() {
		secrets /= 50
	}
	f := newFleet(b, secrets)
	transit := newTransit(b)
	var ours, theirs spent
	for b.Loop() {
		f.rotate(b)
		moved := 0
		for next, more := "", true; more; more = next != "" {
			ours.measure(b, func() (items int) {
				next, items = f.rewrapPages(b, next)
				return items
			})
			theirs.measure(b, func() int {
				for range turn {
					transit(b)
				}
				return turn * batch
			})
			moved = ours.items
		}
		require.Zero(b, moved%secrets)
	}
	b.ReportMetric(ours.each(), "cpu-ns/item")
	b.ReportMetric(theirs.each(), "transit-cpu-ns/item")
	b.ReportMetric(ours.each()/theirs.each(), "x-transit")
}

// spent is the processor's time for so many items.
type spent struct {
	items int
	time  time.Duration
}

func (s *spent) measure(b *testing.B, do func() (items int)) {
	began := cpuTime(b)
	s.items += do()
	s.time += cpuTime(b) - began
}

func (s *spent) each() float64 { return float64(s.time) / float64(s.items) }

// rewrapPages is one turn; next is empty after the last page.
func (f *fleet) rewrapPages(b *testing.B, after string) (next string, done int) {
	next = after
	for range turn {
		page, err := f.service.RewrapPage(b.Context(), operator(), kms.DefaultKeyring, next, kms.MaxRewrapPage, noPause)
		require.NoError(b, err)
		require.Empty(b, page.Failed)
		done += page.Done
		if next = page.Next; next == "" {
			break
		}
	}
	return next, done
}

func operator() kms.Operator {
	return kms.Operator{Actor: audit.Actor{Kind: audit.ActorOperator, ID: "uid/0"}}
}

func noPause(context.Context) (bool, error) { return false, nil }

// fleet is a service over a store of machines with their secrets.
type fleet struct {
	service *kms.Service
	store   *sqlite.Store
}

func newFleet(b *testing.B, secrets int) *fleet {
	b.Helper()
	ctx, dir := b.Context(), b.TempDir()
	path := filepath.Join(dir, "root.key")
	require.NoError(b, file.Create(path, rand.Reader))
	key, err := file.Open(path)
	require.NoError(b, err)
	store, err := sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(dir, "store.db"), Clock: time.Now})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, store.Close()) })
	began := time.Now()
	keys, err := kms.OpenKeys(ctx, kms.KeysConfig{
		Store: store, Roots: []root.Root{key}, Clock: time.Now, Random: rand.Reader,
		Uptime: func() time.Duration { return time.Since(began) },
	})
	require.NoError(b, err)
	f := &fleet{newService(b, store, keys), store}
	f.enrol(b, keys, secrets/secretsOfMachine)
	return f
}

func newService(b *testing.B, store *sqlite.Store, keys *kms.Keys) *kms.Service {
	b.Helper()
	identity, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(b, err)
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(b, err)
	log, err := audit.NewSigner("keywright.test/log", key)
	require.NoError(b, err)
	identities, err := kms.NewIdentities(identity)
	require.NoError(b, err)
	service, err := kms.New(kms.Config{
		Store: store, Keys: keys, Identities: identities, Log: log,
		Clock: time.Now, Random: rand.Reader,
	})
	require.NoError(b, err)
	return service
}

// enrol writes machines, many at a time, so that commits are shared.
func (f *fleet) enrol(b *testing.B, keys *kms.Keys, machines int) {
	b.Helper()
	var next atomic.Int64
	var done sync.WaitGroup
	for range 64 {
		done.Go(func() {
			for n := int(next.Add(1)); n <= machines; n = int(next.Add(1)) {
				rows, err := newRows(keys, n)
				if err == nil {
					err = f.store.Transact(b.Context(), kms.Key{}, func(kms.State) (kms.Outcome, error) { return rows, nil })
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	done.Wait()
	require.False(b, b.Failed())
}

// newRows are those of machine n.
func newRows(keys *kms.Keys, n int) (kms.Outcome, error) {
	tpm, err := sim.NewTPM()
	if err != nil {
		return kms.Outcome{}, err
	}
	ek, err := exchange.CheckEK(tpm.EKPublic)
	if err != nil {
		return kms.Outcome{}, err
	}
	ak, err := exchange.CheckAK(tpm.AKPublic)
	if err != nil {
		return kms.Outcome{}, err
	}
	m := storetest.NewMachine(n)
	m.ID, m.EK, m.AK, m.AKName = ek.MachineID(), ek.Public, ak.Public, ak.Name
	out := kms.Outcome{Machine: m}
	binding := sha256.Sum256(append(ek.Name, ak.Name...))
	for i := range volumesOfMachine {
		v := storetest.NewVolume(m.ID, n*volumesOfMachine+i)
		out.Volumes = append(out.Volumes, v)
		for _, s := range []kms.Secret{storetest.NewSecret(v.ID, 1), storetest.NewRecoveryKey(v.ID, 1)} {
			c := envelope.Context{
				Keyring: kms.DefaultKeyring, Binding: binding[:], Machine: m.ID, Volume: v.ID, Purpose: s.Purpose, SecretVersion: s.Version,
			}
			plaintext, err := secret.Random(rand.Reader, 32)
			if err != nil {
				return out, err
			}
			s.Keyring = kms.DefaultKeyring
			if s.Wrapped, s.KeyringVersion, err = keys.Wrap(c, plaintext); err != nil {
				return out, err
			}
			out.Secrets = append(out.Secrets, s)
		}
	}
	return out, nil
}

func (f *fleet) rotate(b *testing.B) {
	b.Helper()
	_, err := f.service.RotateKeyring(b.Context(), operator(), kms.DefaultKeyring, 0)
	require.NoError(b, err)
}
