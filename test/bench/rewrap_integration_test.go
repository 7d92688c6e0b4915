//go:build integration

package bench_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
	"keywright.dev/test/load"
)

// bootsPerSecond is far below what the service can do, so that an answer's time is
// that of its work and not of a queue.
const bootsPerSecond = 100

// BenchmarkReleaseDuringRewrap measures how long machines wait for their keys, from
// the first packet to the last, with nothing else to do and while a rewrap goes on
// without a limit of its rate, turn and turn about. p99-ratio compares the longest
// waits of each hundred.
func BenchmarkReleaseDuringRewrap(b *testing.B) {
	fleet := activeFleet(b)
	operator := fleet.Service.Operator()
	defer operator.Close()
	var idle, busy []time.Duration
	var moved int
	for b.Loop() {
		for range rounds {
			idle = append(idle, paced(b, fleet)...)
			stop := rewrapping(b, operator, &moved)
			busy = append(busy, paced(b, fleet)...)
			stop()
		}
	}
	b.ReportMetric(milliseconds(atRank(idle, 50)), "idle-p50-ms")
	b.ReportMetric(milliseconds(atRank(busy, 50)), "rewrap-p50-ms")
	b.ReportMetric(milliseconds(atRank(idle, 99)), "idle-p99-ms")
	b.ReportMetric(milliseconds(atRank(busy, 99)), "rewrap-p99-ms")
	b.ReportMetric(float64(atRank(busy, 99))/float64(atRank(idle, 99)), "p99-ratio")
	b.ReportMetric(float64(moved)*bootsPerSecond/float64(len(busy)), "rewraps/s")
	b.ReportMetric(0, "ns/op")
}

// paced boots each machine once and returns how long each took.
func paced(b *testing.B, fleet *load.Fleet) (took []time.Duration) {
	b.Helper()
	limiter := rate.NewLimiter(bootsPerSecond, 1)
	var mu sync.Mutex
	require.NoError(b, fleet.Each(b.Context(), atOnce, nil, func(ctx context.Context, m *load.Machine) error {
		if err := limiter.Wait(ctx); err != nil {
			return err
		}
		began := time.Now()
		err := fleet.Boot(ctx, m)
		mu.Lock()
		defer mu.Unlock()
		took = append(took, time.Since(began))
		return err
	}))
	return took
}

// rewrapping rotates the machines' keyring and rewraps it, again and again, until it
// is stopped.
func rewrapping(b *testing.B, operator *api.OperatorClient, moved *int) (stop func()) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() {
		for {
			if err := rewrapOnce(ctx, operator, moved); err != nil {
				ended <- err
				return
			}
		}
	}()
	return func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			require.NoError(b, err)
		}
	}
}

func rewrapOnce(ctx context.Context, operator *api.OperatorClient, moved *int) error {
	if _, err := operator.RotateKeyring(ctx, kms.DefaultKeyring, 0); err != nil {
		return err
	}
	for after, more := "", true; more; more = after != "" {
		page, err := operator.RewrapKeyring(ctx, kms.DefaultKeyring, api.RewrapKeyring{After: after, Limit: kms.MaxRewrapPage})
		if err != nil {
			return err
		}
		*moved += page.Done
		after = page.Next
	}
	return nil
}

// atRank is the shortest time that so many of a hundred were within.
func atRank(times []time.Duration, percent int) time.Duration {
	times = slices.Sorted(slices.Values(times))
	return times[(len(times)*percent+99)/100-1]
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
