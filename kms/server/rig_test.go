package server_test

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/cmd/keywright/config"
	"keywright.dev/cmd/keywright/serve"
	"keywright.dev/kms/api"
	"keywright.dev/test/process"
	"keywright.dev/test/sim"
)

// rig is the whole service over a temporary folder: real listeners, store, root
// and policies.
type rig struct {
	t       *testing.T
	service *serve.Service
	log     *process.Output // what the service logged
	stop    context.CancelFunc
	stopped chan error
	end     sync.Once
}

func newRig(t *testing.T, change func(*config.Config)) *rig {
	t.Helper()
	return openRig(t, t.TempDir(), change)
}

func openRig(t *testing.T, data string, change func(*config.Config)) *rig {
	t.Helper()
	c := config.Default()
	c.Server.Data, c.Server.GuestListen, c.Server.MetricsListen = filepath.Join(data, "d"), "127.0.0.1:0", "127.0.0.1:0"
	if change != nil {
		change(&c)
	}
	r := &rig{t: t, log: new(process.Output), stopped: make(chan error, 1)}
	logger := slog.New(slog.NewJSONHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	r.service, err = serve.Open(t.Context(), serve.Options{Config: c, Version: "test", Logger: logger, Clock: time.Now, Uptime: serve.Uptime})
	require.NoError(t, err)
	r.run()
	return r
}

// run serves until the test ends.
func (r *rig) run() {
	var ctx context.Context
	ctx, r.stop = context.WithCancel(context.Background())
	go func() { r.stopped <- r.service.Run(ctx) }()
	require.Eventually(r.t, func() bool { return r.service.Server.Ready(r.t.Context()) == nil }, 5*time.Second, time.Millisecond)
	r.t.Cleanup(r.close)
	r.t.Cleanup(func() {
		if r.t.Failed() {
			r.t.Log(r.log.String())
		}
	})
}

// close stops the service in order, once.
func (r *rig) close() {
	r.end.Do(func() {
		r.stop()
		assert.NoError(r.t, <-r.stopped)
	})
}

// guest returns a client whose packets come from an address of its own.
func (r *rig) guest(source string) *api.GuestClient {
	r.t.Helper()
	client, err := api.NewGuestClient(r.service.GuestURL, dialFrom(source))
	require.NoError(r.t, err)
	r.t.Cleanup(client.Close)
	return client
}

func dialFrom(source string) api.DialFunc {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	return dialer.DialContext
}

func (r *rig) operator() *api.OperatorClient {
	client := api.NewOperatorClient(r.service.Socket)
	r.t.Cleanup(client.Close)
	return client
}

func (r *rig) guestAddress() string { return strings.TrimPrefix(r.service.GuestURL, "https://") }

// dialTLS connects as anybody can.
func (r *rig) dialTLS() *tls.Conn {
	r.t.Helper()
	conn, err := tls.Dial("tcp", r.guestAddress(), &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
	require.NoError(r.t, err)
	r.t.Cleanup(func() { conn.Close() })
	return conn
}

// clients of the three listeners, without anything that this project adds.
func (r *rig) raw(listener string) (client *http.Client, base string) {
	transport := &http.Transport{DisableCompression: true}
	r.t.Cleanup(transport.CloseIdleConnections)
	switch listener {
	case "guest":
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
		return &http.Client{Transport: transport}, r.service.GuestURL
	case "metrics":
		return &http.Client{Transport: transport}, "http://" + r.service.Metrics
	default:
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", r.service.Socket)
		}
		return &http.Client{Transport: transport}, "http://operator"
	}
}

// head is the part of an answer before its body.
type head struct {
	StatusCode int
	Header     http.Header
}

// send sends a request with a body and headers and returns what came back.
func (r *rig) send(listener, method, path, body string, headers ...string) (head, string) {
	r.t.Helper()
	client, base := r.raw(listener)
	defer client.CloseIdleConnections() // a source has only so many
	request, err := http.NewRequestWithContext(r.t.Context(), method, base+path, strings.NewReader(body))
	require.NoError(r.t, err)
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := client.Do(request)
	require.NoError(r.t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(r.t, err)
	return head{response.StatusCode, response.Header}, string(text)
}

// measured waits until a metric has a value.
func (r *rig) measured(metric string, value int) {
	r.t.Helper()
	require.Eventually(r.t, func() bool {
		_, text := r.send("metrics", http.MethodGet, api.PathMetrics, "")
		return strings.Contains(text, fmt.Sprintf("\n%s %d\n", metric, value))
	}, 10*time.Second, 20*time.Millisecond, metric)
}

// pin is what a guest pins of the service.
func (r *rig) pin() [32]byte {
	r.t.Helper()
	raw, err := hex.DecodeString(strings.TrimPrefix(r.service.Fingerprint, "sha256:"))
	require.NoError(r.t, err)
	return [32]byte(raw)
}

func (r *rig) machine(name string) *sim.Machine {
	r.t.Helper()
	log, err := sim.ReadLog(filepath.Join("..", "attest", "testdata", "eventlogs", "ovmf-uki.bin"))
	require.NoError(r.t, err)
	m, err := sim.NewMachine(name, log, r.pin(), 2)
	require.NoError(r.t, err)
	return m
}

// active returns a machine that is enrolled, approved and restarted.
func (r *rig) active(name string) *sim.Machine {
	r.t.Helper()
	m, guest := r.machine(name), r.guest("127.0.0.1")
	defer guest.Close()
	require.NoError(r.t, m.Enroll(r.t.Context(), guest))
	_, err := r.operator().ApproveMachine(r.t.Context(), name, api.ApproveMachine{EKHash: m.TPM.Machine()})
	require.NoError(r.t, err)
	m.Boot()
	return m
}

// refusedWith holds that err is the API's error with that code.
func refusedWith(t *testing.T, code api.Code, err error) *api.Error {
	t.Helper()
	var known *api.Error
	require.ErrorAs(t, err, &known)
	require.Equal(t, code, known.Code, known.Message)
	return known
}

func tlsClient(conn net.Conn) *tls.Conn {
	return tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
}
