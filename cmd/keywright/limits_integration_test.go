//go:build integration

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/api"
	"keywright.dev/kms/server"
	"keywright.dev/test/sim"
)

// maxResident is what the service's memory stays below, in KiB.
const maxResident = 512 << 10

// TestAttack19MemoryStaysBounded asks of a real service, in a process of its
// own, four times what every limit allows at once: idle connections, slow
// headers, bodies that never end, and floods of the largest bodies. Its memory
// stays below 512 MiB, and a machine's boot gets its keys meanwhile. It says
// nothing under the race detector, which takes several times the memory.
func TestAttack19MemoryStaysBounded(t *testing.T) {
	s := startServer(t)
	m := s.active(t)
	limits := server.DefaultLimits()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var attackers sync.WaitGroup
	for i := range 4 * limits.Connections {
		attackers.Go(func() { s.attack(ctx, i) })
	}
	// Enough for every limit to be reached.
	time.Sleep(3 * time.Second)
	m.Boot()
	require.Eventually(t, func() bool {
		_, err := m.Unlock(ctx, s.guest(t, "127.0.0.9"))
		return err == nil
	}, 3*time.Minute, 100*time.Millisecond, "a boot that asks again and again during the attack")
	peak := s.status(t, "VmHWM")
	t.Logf("peak %d MiB resident", peak>>10)
	assert.Less(t, peak, maxResident)
	cancel()
	attackers.Wait()
	m.Boot()
	_, err := m.Unlock(t.Context(), s.guest(t, "127.0.0.9"))
	require.NoError(t, err, "after the attack")
}

func (s *child) guest(t *testing.T, source string) *api.GuestClient {
	t.Helper()
	guest, err := api.NewGuestClient(s.url, dialerFrom(source).DialContext)
	require.NoError(t, err)
	t.Cleanup(guest.Close)
	return guest
}

func dialerFrom(source string) *net.Dialer {
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
}

// active returns a machine that is enrolled and approved.
func (s *child) active(t *testing.T) *sim.Machine {
	t.Helper()
	log, err := sim.ReadLog(filepath.Join("..", "..", "kms", "attest", "testdata", "eventlogs", "ovmf-uki.bin"))
	require.NoError(t, err)
	m, err := sim.NewMachine("web-17", log, s.pin, 1)
	require.NoError(t, err)
	require.NoError(t, m.Enroll(t.Context(), s.guest(t, "127.0.0.9")))
	operator := api.NewOperatorClient(s.socket)
	t.Cleanup(operator.Close)
	_, err = operator.ApproveMachine(t.Context(), "web-17", api.ApproveMachine{EKHash: m.TPM.Machine()})
	require.NoError(t, err)
	return m
}

// status returns a value of /proc/PID/status, in KiB.
func (s *child) status(t *testing.T, field string) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
			require.NoError(t, err)
			return n
		}
	}
	t.Fatalf("no %s", field)
	return 0
}

// attack is what one attacker does until ctx ends, from one of many addresses.
func (s *child) attack(ctx context.Context, i int) {
	source := fmt.Sprintf("127.%d.%d.1", 1+i%64, i/64%250)
	for ctx.Err() == nil {
		conn, err := dialerFrom(source).DialContext(ctx, "tcp", s.address)
		if err == nil {
			hold(ctx, tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}), i%4)
			conn.Close()
		}
		// Both sides share this machine's processors.
		time.Sleep(time.Second)
	}
}

// hold uses a connection in one of four ways.
func hold(ctx context.Context, conn *tls.Conn, way int) {
	stop := context.AfterFunc(ctx, func() { conn.NetConn().Close() })
	defer stop()
	const head = "POST " + api.PathBootRelease + " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
	switch way {
	case 0: // connects and says nothing
	case 1: // never ends its header
		fmt.Fprint(conn, head+"X: "+strings.Repeat("a", 4<<10))
	case 2: // never ends its body
		fmt.Fprintf(conn, head+"Content-Length: %d\r\n\r\n", api.MaxEvidenceRequest)
		_, _ = conn.Write(bytes.Repeat([]byte(" "), api.MaxEvidenceRequest-1))
	case 3: // sends the largest body that is taken
		fmt.Fprintf(conn, head+"Content-Length: %d\r\n\r\n{\"statement\":\"", api.MaxEvidenceRequest)
		_, _ = conn.Write(bytes.Repeat([]byte("A"), api.MaxEvidenceRequest-14))
	}
	_, _ = conn.Read(make([]byte, 1024)) // until the service has had enough
}
