//go:build integration

package bench_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keywright.dev/kms/api"
	"keywright.dev/test/load"
)

// booting is how many machines of the fleet boot while the others are rekeyed.
const booting = 100

// BenchmarkRekeys measures how many rekeys a second the service and the machines get
// through, each from the order to the report that the keyslot before is gone. x-release
// compares the service's processor time for one with that for a release; p99-ratio how
// long machines wait for their keys while others are rekeyed, 64 at a time, with how long
// they wait with nothing beside it, turn and turn about.
func BenchmarkRekeys(b *testing.B) {
	fleet := activeFleet(b)
	boots := &load.Fleet{Service: fleet.Service, Machines: fleet.Machines[:booting]}
	others := &load.Fleet{Service: fleet.Service, Machines: fleet.Machines[booting:]}
	operator := fleet.Service.Operator()
	defer operator.Close()
	var took, rekeys, releases time.Duration
	var idle, busy []time.Duration
	for b.Loop() {
		for range rounds / 2 {
			began := time.Now()
			rekeys += cpuDuring(b, fleet.Service.PID(), func() { require.NoError(b, rekeyAll(b.Context(), others, operator)) })
			took += time.Since(began)
			releases += cpuDuring(b, fleet.Service.PID(), func() { idle = append(idle, paced(b, boots)...) })
			ended := make(chan error, 1)
			go func() { ended <- rekeyAll(b.Context(), others, operator) }()
			busy = append(busy, paced(b, boots)...)
			require.NoError(b, <-ended)
		}
	}
	n := float64(b.N * rounds / 2)
	rekey := float64(rekeys.Microseconds()) / n / float64(len(others.Machines))
	b.ReportMetric(n*float64(len(others.Machines))/took.Seconds(), "rekeys/s")
	b.ReportMetric(rekey, "cpu-µs/rekey")
	b.ReportMetric(rekey*n*booting/float64(releases.Microseconds()), "x-release")
	b.ReportMetric(milliseconds(atRank(idle, 99)), "idle-p99-ms")
	b.ReportMetric(milliseconds(atRank(busy, 99)), "rekeys-p99-ms")
	b.ReportMetric(float64(atRank(busy, 99))/float64(atRank(idle, 99)), "p99-ratio")
	b.ReportMetric(0, "ns/op")
}

// rekeyAll rekeys a volume of each machine once.
func rekeyAll(ctx context.Context, fleet *load.Fleet, operator *api.OperatorClient) error {
	return fleet.Each(ctx, atOnce, nil, func(ctx context.Context, m *load.Machine) error {
		if err := fleet.Order(ctx, operator, m); err != nil {
			return err
		}
		return fleet.Rekey(ctx, m, func(load.Step) error { return nil })
	})
}
