package server_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keywright.dev/cmd/keywright/config"
	"keywright.dev/cmd/keywright/serve"
	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
	"keywright.dev/test/sim"
)

// BenchmarkKeys measures whole batches of 1,000 secrets of 32 bytes over the
// operators' socket: sealed, worked on, logged on disk, sealed again. Those that are rewrapped are at the current
// version already, so that they are opened and come back; one that moves costs a
// wrapping more.
func BenchmarkKeys(b *testing.B) {
	o := benchOperator(b, benchService(b, time.Now))
	benchKeys(b, func(operation exchange.KeyOperation, items []exchange.KeyItem) []exchange.KeyResult {
		answer, err := o.Keys(b.Context(), operation, "default", &exchange.KeyRequest{Items: items})
		require.NoError(b, err)
		return answer.Results
	})
}

// BenchmarkKeysOfMachine measures the same batches of a running machine over the
// guest listener: a challenge, a quote, its verification, and the decision on top.
// The quote is made in software, which a TPM takes much longer for. Between two
// calls the service's clock goes on by what the machine's rate demands.
func BenchmarkKeysOfMachine(b *testing.B) {
	var skipped atomic.Int64
	s := benchService(b, func() time.Time { return time.Now().Add(time.Duration(skipped.Load())) })
	m, guest := benchMachine(b, s)
	benchKeys(b, func(operation exchange.KeyOperation, items []exchange.KeyItem) []exchange.KeyResult {
		skipped.Add(int64(time.Second))
		results, err := m.UseKeys(b.Context(), guest, operation, "default", items...)
		require.NoError(b, err)
		return results
	})
}

func benchKeys(b *testing.B, use func(exchange.KeyOperation, []exchange.KeyItem) []exchange.KeyResult) {
	b.Helper()
	var items []exchange.KeyItem
	for range exchange.MaxKeyItems {
		key, err := secret.Random(rand.Reader, 32)
		require.NoError(b, err)
		items = append(items, exchange.KeyItem{Context: "test", Plaintext: key})
	}
	wrapped := itemsOf(use(exchange.KeyWrap, items)).Items
	for operation, items := range map[exchange.KeyOperation][]exchange.KeyItem{
		exchange.KeyWrap: items, exchange.KeyRewrap: wrapped, exchange.KeyUnwrap: wrapped,
	} {
		b.Run(string(operation), func(b *testing.B) {
			for b.Loop() {
				answer := exchange.KeyAnswer{Results: use(operation, items)}
				require.Empty(b, answer.Results[0].Code)
				answer.Wipe()
			}
			b.ReportMetric(float64(b.N)*exchange.MaxKeyItems/b.Elapsed().Seconds(), "items/s")
		})
	}
}

// benchMachine is enrolled, approved, and runs with its keys.
func benchMachine(b *testing.B, s *serve.Service) (*sim.Machine, *api.GuestClient) {
	b.Helper()
	guest, err := api.NewGuestClient(s.GuestURL, dialFrom("127.0.0.1"))
	require.NoError(b, err)
	b.Cleanup(guest.Close)
	log, err := sim.ReadLog(filepath.Join("..", "attest", "testdata", "eventlogs", "ovmf-uki.bin"))
	require.NoError(b, err)
	pin, err := hex.DecodeString(strings.TrimPrefix(s.Fingerprint, "sha256:"))
	require.NoError(b, err)
	m, err := sim.NewMachine("web-17", log, [32]byte(pin), 1)
	require.NoError(b, err)
	require.NoError(b, m.Enroll(b.Context(), guest))
	_, err = benchOperator(b, s).ApproveMachine(b.Context(), "web-17", api.ApproveMachine{EKHash: m.TPM.Machine()})
	require.NoError(b, err)
	m.Boot()
	_, err = m.Unlock(b.Context(), guest)
	require.NoError(b, err)
	return m, guest
}

func benchService(b *testing.B, clock func() time.Time) *serve.Service {
	b.Helper()
	c := config.Default()
	c.Server.Data, c.Server.GuestListen, c.Server.MetricsListen = filepath.Join(b.TempDir(), "d"), "127.0.0.1:0", "127.0.0.1:0"
	service, err := serve.Open(b.Context(), serve.Options{Config: c, Version: "test", Logger: slog.New(slog.DiscardHandler), Clock: clock, Uptime: serve.Uptime})
	require.NoError(b, err)
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- service.Run(ctx) }()
	b.Cleanup(func() { stop(); require.NoError(b, <-stopped) })
	require.Eventually(b, func() bool { return service.Server.Ready(b.Context()) == nil }, 5*time.Second, time.Millisecond)
	return service
}

func benchOperator(b *testing.B, service *serve.Service) *api.OperatorClient {
	b.Helper()
	client := api.NewOperatorClient(service.Socket)
	b.Cleanup(client.Close)
	return client
}
