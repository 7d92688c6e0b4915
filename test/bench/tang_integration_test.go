//go:build integration

package bench_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// tang is Debian's tang as its socket unit runs it: a process for each
// connection, with the connection as its input and output. What the service
// manager spends on it is not counted.
type tang struct {
	keys string // folder
	// url is that of a recovery.
	url string
	// request is what a client posts: a point on P-521.
	request []byte
	cpu     atomic.Int64 // nanoseconds of all processes that ended
	served  atomic.Int64
}

const (
	tangProgram = "/usr/libexec/tangd"
	tangKeygen  = "/usr/libexec/tangd-keygen"
)

func newTang(b *testing.B) *tang {
	b.Helper()
	t := &tang{keys: b.TempDir()}
	out, err := exec.Command(tangKeygen, t.keys).CombinedOutput()
	require.NoError(b, err, "%s: %s: run test/setup bench", tangKeygen, out)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	b.Cleanup(func() { listener.Close() })
	go t.accept(listener)
	t.url = fmt.Sprintf("http://%s/rec/%s", listener.Addr(), exchangeKey(b, t.keys))
	private, err := ecdh.P521().GenerateKey(rand.Reader)
	require.NoError(b, err)
	point := private.PublicKey().Bytes()[1:]
	half := len(point) / 2
	t.request, err = json.Marshal(map[string]string{
		"alg": "ECMR", "kty": "EC", "crv": "P-521",
		"x": base64.RawURLEncoding.EncodeToString(point[:half]), "y": base64.RawURLEncoding.EncodeToString(point[half:]),
	})
	require.NoError(b, err)
	return t
}

// exchangeKey returns the thumbprint, which is the file's name, of the key that
// recovers.
func exchangeKey(b *testing.B, keys string) string {
	b.Helper()
	paths, err := filepath.Glob(filepath.Join(keys, "*.jwk"))
	require.NoError(b, err)
	for _, path := range paths {
		var key struct {
			Operations []string `json:"key_ops"`
		}
		text, err := os.ReadFile(path)
		require.NoError(b, err)
		require.NoError(b, json.Unmarshal(text, &key))
		if slices.Contains(key.Operations, "deriveKey") {
			return strings.TrimSuffix(filepath.Base(path), ".jwk")
		}
	}
	b.Fatalf("%s made no exchange key", tangKeygen)
	return ""
}

func (t *tang) accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go t.serve(conn.(*net.TCPConn))
	}
}

func (t *tang) serve(conn *net.TCPConn) {
	socket, err := conn.File()
	conn.Close()
	if err != nil {
		return
	}
	defer socket.Close()
	cmd := exec.Command(tangProgram, t.keys)
	cmd.Stdin, cmd.Stdout = socket, socket
	// It ends when its client hangs up, with an error that means nothing.
	_ = cmd.Run()
	if cmd.ProcessState != nil {
		t.cpu.Add(int64(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()))
		t.served.Add(1)
	}
}

// recover asks n times, as clevis does, with so many at once, and returns the
// time that tangd used.
func (t *tang) recover(b *testing.B, n, atOnce int) time.Duration {
	b.Helper()
	cpu, served := t.cpu.Load(), t.served.Load()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	concurrently(b, n, atOnce, func() error { return t.ask(client) })
	require.Eventually(b, func() bool { return t.served.Load() == served+int64(n) }, 10*time.Second, time.Millisecond)
	return time.Duration(t.cpu.Load() - cpu)
}

func (t *tang) ask(client *http.Client) error {
	answer, err := client.Post(t.url, "application/jwk+json", bytes.NewReader(t.request))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	var point struct {
		X string `json:"x"`
	}
	if err == nil {
		err = json.Unmarshal(body, &point)
	}
	if err != nil || answer.StatusCode != http.StatusOK || point.X == "" {
		return fmt.Errorf("tang answered with status %d: %w", answer.StatusCode, err)
	}
	return nil
}
