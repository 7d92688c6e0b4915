//go:build integration

package bench_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/test/load"
	"keywright.dev/test/process"
	"keywright.dev/test/sim"
)

const (
	// machines boot once in each round.
	machines = 500
	// recoveries are those of tang in each round.
	recoveries = 60
	rounds     = 4
	// atOnce is how many ask at the same time, of each of the three.
	atOnce = 64
	// logSize is what the event log of a machine has at least, in bytes.
	logSize = 46 << 10
)

// BenchmarkRelease measures the service's processor time for a whole boot of a
// machine with two volumes: connection, handshake, challenge, 46 KiB of event
// log verified, decided, logged on disk, sealed. composite-ratio compares it
// with [bare], tang-ratio with a recovery of tang.
func BenchmarkRelease(b *testing.B) {
	fleet := activeFleet(b)
	plain := startBare(b, fleet.Machines[0].Machine)
	peer := newTang(b)
	var ours, composite, recovery time.Duration
	for b.Loop() {
		for range rounds {
			ours += cpuDuring(b, fleet.Service.PID(), func() {
				require.NoError(b, fleet.Each(b.Context(), atOnce, nil, fleet.Boot))
			})
			composite += cpuDuring(b, plain.pid, func() { concurrently(b, machines, atOnce, plain.ask) })
			recovery += peer.recover(b, recoveries, atOnce)
		}
	}
	n := float64(b.N * rounds)
	release := float64(ours.Microseconds()) / n / machines
	bare := float64(composite.Microseconds()) / n / machines
	tangd := float64(recovery.Microseconds()) / n / recoveries
	b.ReportMetric(release, "cpu-µs/release")
	b.ReportMetric(bare, "cpu-µs/composite")
	b.ReportMetric(tangd, "cpu-µs/tang")
	b.ReportMetric(release/bare, "composite-ratio")
	b.ReportMetric(release/tangd, "tang-ratio")
	b.ReportMetric(0, "ns/op")
}

func concurrently(b *testing.B, n, atOnce int, ask func() error) {
	b.Helper()
	var group errgroup.Group
	group.SetLimit(atOnce)
	for range n {
		group.Go(ask)
	}
	require.NoError(b, group.Wait())
}

// activeFleet returns machines that are enrolled with a service, approved, and
// booted once.
func activeFleet(b *testing.B) *load.Fleet {
	b.Helper()
	// A short path: that of a socket is limited.
	dir, err := os.MkdirTemp("", "kw") //nolint:usetesting // as above
	require.NoError(b, err)
	b.Cleanup(func() { os.RemoveAll(dir) })
	program, err := load.BuildService(b.Context(), dir)
	require.NoError(b, err)
	service := load.NewService(program, dir)
	require.NoError(b, service.Start(b.Context()))
	b.Cleanup(service.Kill)
	fleet, err := load.NewFleet(b.Context(), service, longLog(b), machines)
	require.NoError(b, err)
	operator := service.Operator()
	defer operator.Close()
	require.NoError(b, fleet.Each(b.Context(), atOnce, nil, fleet.Enroll))
	require.NoError(b, fleet.Each(b.Context(), atOnce, nil, func(ctx context.Context, m *load.Machine) error {
		return fleet.Approve(ctx, operator, m)
	}))
	require.NoError(b, fleet.Each(b.Context(), atOnce, nil, fleet.Boot))
	return fleet
}

// longLog is a recorded log of OVMF and GRUB in which GRUB ran more commands.
func longLog(b *testing.B) *sim.Log {
	b.Helper()
	log, err := sim.ReadLog(filepath.Join("..", "..", "kms", "attest", "testdata", "eventlogs", "grub-a.bin"))
	require.NoError(b, err)
	// EV_IPL in PCR 8, as GRUB measures a command.
	const pcr, eventType = 8, 0x0d
	for i := 0; len(log.Bytes) < logSize; i++ {
		command := fmt.Sprintf("grub_cmd: set color_%03d=%s\x00", i, strings.Repeat("light-gray/black:", 12))
		log, err = log.With(pcr, eventType, []byte(command))
		require.NoError(b, err)
	}
	return log
}

// client asks the bare composite.
type client struct {
	pid     int
	address string
	body    []byte
}

// startBare starts the bare composite and makes a request of what m would send
// to the service.
func startBare(b *testing.B, m *sim.Machine) *client {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleVariable+"=bare")
	in, err := cmd.StdinPipe()
	require.NoError(b, err)
	reader, writer, err := os.Pipe()
	require.NoError(b, err)
	defer reader.Close()
	cmd.Stdout = writer
	child, err := process.Start(cmd)
	require.NoError(b, err)
	require.NoError(b, writer.Close())
	b.Cleanup(func() {
		in.Close()
		child.End(10 * time.Second)
	})
	c := &client{pid: cmd.Process.Pid}
	_, err = fmt.Fscan(reader, &c.address)
	require.NoError(b, err)
	request, err := m.Prepare(exchange.PurposeBoot, api.Challenge{Challenge: make([]byte, 32), Token: make([]byte, 56)})
	require.NoError(b, err)
	attested, err := request.Attest()
	require.NoError(b, err)
	c.body, err = api.Encode(api.ReleaseRequest{Attested: attested})
	require.NoError(b, err)
	return c
}

func (c *client) ask() error {
	conn, err := net.Dial("tcp", c.address)
	if err != nil {
		return err
	}
	secured := tls.Client(conn, &tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true,
		CurvePreferences: []tls.CurveID{tls.X25519MLKEM768, tls.X25519},
	})
	defer secured.Close()
	if err := writeFrame(secured, c.body); err != nil {
		return err
	}
	_, err = readFrame(secured)
	return err
}
