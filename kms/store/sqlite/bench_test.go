package sqlite_test

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/store/sqlite"
	"keywright.dev/kms/store/storetest"
)

// fleet is how many machines the benchmarks release to.
const fleet = 10_000

// BenchmarkRelease measures a release as package kms asks for it: state of a
// machine with two volumes read, challenge redeemed, counters moved, entry
// appended, synced to disk. cpu-us/op is user and system time of the process.
func BenchmarkRelease(b *testing.B) {
	s := open(b, storePath(b))
	enrolFleet(b, s)
	signed := storetest.NewEntry(b, storetest.NewSigner(b), "", "boot.release", 1)
	for _, callers := range []int{1, 8, 64, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			var next atomic.Int64
			before := cpu()
			b.ResetTimer()
			var done sync.WaitGroup
			for range callers {
				done.Go(func() {
					for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
						if err := release(s, int(n), signed); err != nil {
							b.Error(err)
						}
					}
				})
			}
			done.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "releases/s")
			b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-us/op")
		})
	}
}

// BenchmarkCensus counts what depends on a keyring over so many secrets: it should
// cost the same over all of them.
func BenchmarkCensus(b *testing.B) {
	for _, secrets := range []int{1_000, 1_000_000} {
		b.Run(fmt.Sprintf("secrets=%d", secrets), func(b *testing.B) {
			s := openWithSecrets(b, secrets)
			ctx := context.Background()
			for b.Loop() {
				counts, err := s.Dependents(ctx, kms.DefaultKeyring)
				require.NoError(b, err)
				require.Equal(b, int64(secrets), counts[0].Count)
				page, err := s.SecretsOn(ctx, kms.DefaultKeyring, 1, kms.SecretRef{Volume: fmt.Sprintf("%032x", secrets/2)}, 100)
				require.NoError(b, err)
				require.NotEmpty(b, page)
			}
		})
	}
}

// openWithSecrets returns a store of one machine with so many secrets, which are
// written behind the store's back: this takes seconds.
func openWithSecrets(b *testing.B, secrets int) *sqlite.Store {
	b.Helper()
	path := storePath(b)
	s := open(b, path)
	require.NoError(b, transact(s, kms.Key{}, kms.Outcome{Machine: storetest.NewMachine(1)}))
	db, err := sql.Open("sqlite", path)
	require.NoError(b, err)
	defer db.Close()
	_, err = db.Exec(`WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
		INSERT INTO volumes (machine, id, uuid, status, size, has_foreign, copied, keyring, created, reencrypted)
		SELECT ?, format('%032x', i), i, 'active', 0, 0, 0, 'default', 0, 0 FROM n`, secrets, storetest.MachineID(1))
	require.NoError(b, err)
	_, err = db.Exec(`INSERT INTO secrets SELECT id, 'luks-keyslot', 1, 'current', 'default', 1, hex(zeroblob(90)), 0, 0, 0, 1, 1, '', 0, '' FROM volumes ORDER BY id`)
	require.NoError(b, err)
	return s
}

func enrolFleet(b *testing.B, s *sqlite.Store) {
	b.Helper()
	require.NoError(b, transact(s, kms.Key{}, kms.Outcome{Measurements: []kms.Measurement{storetest.NewMeasurement("web", 0)}}))
	var next atomic.Int64
	var done sync.WaitGroup
	for range 64 {
		done.Go(func() {
			for n := int(next.Add(1)); n <= fleet; n = int(next.Add(1)) {
				if err := transact(s, kms.Key{}, enrolled(n)); err != nil {
					b.Error(err)
				}
			}
		})
	}
	done.Wait()
}

// enrolled is machine n with two volumes.
func enrolled(n int) kms.Outcome {
	id := storetest.MachineID(n)
	o := kms.Outcome{Machine: storetest.NewMachine(n), Platforms: []kms.Platform{storetest.NewPlatform(id, n)}}
	for i := 2 * n; i < 2*n+2; i++ {
		o.Volumes = append(o.Volumes, storetest.NewVolume(id, i))
		o.Secrets = append(o.Secrets, storetest.NewSecret(storetest.VolumeID(i), 1))
	}
	return o
}

func transact(s *sqlite.Store, key kms.Key, o kms.Outcome) error {
	return s.Transact(context.Background(), key, func(kms.State) (kms.Outcome, error) { return o, nil })
}

func release(s *sqlite.Store, n int, entry kms.LogEntry) error {
	machine := 1 + n*7919%fleet
	challenge := challengeOf(n)
	platform := storetest.Digest("platform", machine)
	key := kms.Key{
		Machine: storetest.MachineID(machine), Challenge: &challenge,
		Measurements: [][32]byte{storetest.Digest("measurement", 0)}, Platform: &platform,
	}
	return s.Transact(context.Background(), key, func(state kms.State) (kms.Outcome, error) {
		m := state.Machine
		if m == nil || len(state.Secrets) != 2 || len(state.Measurements) != 1 || state.Platform == nil || state.Redeemed {
			return kms.Outcome{}, fmt.Errorf("release %d saw another state: %+v", n, state)
		}
		m.Counters.Clock++
		m.Releases = []uint64{m.Counters.Clock}
		m.LastRelease = time.Now()
		entry.Machine = m.ID
		return kms.Outcome{
			Redeem:  &kms.Redemption{Challenge: challenge, KeepUntil: time.Now().Add(3 * time.Minute)},
			Machine: m, Entries: []kms.LogEntry{entry},
		}, nil
	})
}

// challengeOf differs for every n and every run of a benchmark.
func challengeOf(n int) [32]byte {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], uint64(n))
	binary.BigEndian.PutUint64(b[8:], uint64(time.Now().UnixNano()))
	return sha256.Sum256(b[:])
}

func cpu() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
