package server_test

import (
	"context"
	"crypto/rand"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keywright.dev/cmd/keywright/config"
	"keywright.dev/cmd/keywright/serve"
	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
)

// BenchmarkKeys measures whole batches of 1,000 secrets of 32 bytes over the
// operators' socket: sealed, worked on, logged on disk, sealed again. Those that are rewrapped are at the current
// version already, so that they are opened and come back; one that moves costs a
// wrapping more.
func BenchmarkKeys(b *testing.B) {
	o := benchOperator(b)
	request := &exchange.KeyRequest{}
	for range exchange.MaxKeyItems {
		key, err := secret.Random(rand.Reader, 32)
		require.NoError(b, err)
		request.Items = append(request.Items, exchange.KeyItem{Context: "test", Plaintext: key})
	}
	wrapped, err := o.Keys(b.Context(), exchange.KeyWrap, "default", request)
	require.NoError(b, err)
	for operation, items := range map[exchange.KeyOperation]*exchange.KeyRequest{
		exchange.KeyWrap: request, exchange.KeyRewrap: itemsOf(wrapped.Results), exchange.KeyUnwrap: itemsOf(wrapped.Results),
	} {
		b.Run(string(operation), func(b *testing.B) {
			for b.Loop() {
				answer, err := o.Keys(b.Context(), operation, "default", items)
				require.NoError(b, err)
				answer.Wipe()
			}
			b.ReportMetric(float64(b.N)*exchange.MaxKeyItems/b.Elapsed().Seconds(), "items/s")
		})
	}
}

func benchOperator(b *testing.B) *api.OperatorClient {
	b.Helper()
	c := config.Default()
	c.Server.Data, c.Server.GuestListen, c.Server.MetricsListen = filepath.Join(b.TempDir(), "d"), "127.0.0.1:0", "127.0.0.1:0"
	service, err := serve.Open(b.Context(), serve.Options{Config: c, Version: "test", Logger: slog.New(slog.DiscardHandler), Clock: time.Now})
	require.NoError(b, err)
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- service.Run(ctx) }()
	b.Cleanup(func() { stop(); require.NoError(b, <-stopped) })
	require.Eventually(b, func() bool { return service.Server.Ready(b.Context()) == nil }, 5*time.Second, time.Millisecond)
	client := api.NewOperatorClient(service.Socket)
	b.Cleanup(client.Close)
	return client
}
