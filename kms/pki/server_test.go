package pki_test

import (
	"crypto/fips140"
	"crypto/tls"
	"crypto/x509"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/pki"
)

// clock is a clock that the test sets.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) set(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = at
}

func newSource(t *testing.T, ca *pki.CA, c *clock) *pki.Source {
	t.Helper()
	source, err := pki.NewSource(ca, names(t, "localhost", "127.0.0.1"), c.now)
	require.NoError(t, err)
	return source
}

// listen serves handshakes on loopback until the test ends.
func listen(t *testing.T, config *tls.Config) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	require.NoError(t, err)
	var served sync.WaitGroup
	served.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() { serve(conn) })
		}
	})
	t.Cleanup(func() {
		assert.NoError(t, l.Close())
		served.Wait()
	})
	return l.Addr().String()
}

// serve sends one byte, so that a client that reads it has seen any ticket.
func serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = conn.Write([]byte{1})
}

// dial makes one handshake and reads the byte.
func dial(t *testing.T, address string, config *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	conn, err := tls.Dial("tcp", address, config)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer func() { assert.NoError(t, conn.Close()) }()
	_, err = conn.Read(make([]byte, 1))
	return conn.ConnectionState(), err
}

func clientOf(t *testing.T, ca *pki.CA) *tls.Config {
	t.Helper()
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(ca.PEM()))
	return &tls.Config{RootCAs: pool, ServerName: "localhost", Time: func() time.Time { return start }}
}

func TestHandshakeIsHybridTLS13(t *testing.T) {
	ca := newCA(t)
	address := listen(t, pki.TLSConfig(newSource(t, ca, &clock{at: start}).GetCertificate))

	state, err := dial(t, address, clientOf(t, ca))
	require.NoError(t, err)
	assert.Equal(t, uint16(tls.VersionTLS13), state.Version)
	assert.Equal(t, tls.X25519MLKEM768, state.CurveID)

	classical := clientOf(t, ca)
	classical.CurvePreferences = []tls.CurveID{tls.X25519}
	state, err = dial(t, address, classical)
	if fips140.Enabled() {
		require.Error(t, err, "X25519 by itself is no approved key exchange")
		return
	}
	require.NoError(t, err)
	assert.Equal(t, tls.X25519, state.CurveID)
}

func TestHandshakeRefusesWhatIsOlder(t *testing.T) {
	ca := newCA(t)
	address := listen(t, pki.TLSConfig(newSource(t, ca, &clock{at: start}).GetCertificate))

	old := clientOf(t, ca)
	old.MaxVersion = tls.VersionTLS12
	_, err := dial(t, address, old)
	require.ErrorContains(t, err, "protocol version")

	curve := clientOf(t, ca)
	curve.CurvePreferences = []tls.CurveID{tls.CurveP256}
	_, err = dial(t, address, curve)
	require.ErrorContains(t, err, "handshake failure")
}

func TestNoSessionIsResumed(t *testing.T) {
	ca := newCA(t)
	address := listen(t, pki.TLSConfig(newSource(t, ca, &clock{at: start}).GetCertificate))
	client := clientOf(t, ca)
	client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for range 2 {
		state, err := dial(t, address, client)
		require.NoError(t, err)
		assert.False(t, state.DidResume)
	}
	_, kept := client.ClientSessionCache.Get("localhost")
	assert.False(t, kept)
}

func TestCertificateIsRenewedAtTwoThirds(t *testing.T) {
	c := &clock{at: start}
	source := newSource(t, newCA(t), c)
	serial := func(at time.Time) string {
		c.set(at)
		certificate, err := source.GetCertificate(nil)
		require.NoError(t, err)
		return certificate.Leaf.SerialNumber.String()
	}
	// An hour of backdating belongs to the certificate's life.
	third := (pki.ServerLifetime + time.Hour) / 3
	first := serial(start)
	assert.Equal(t, first, serial(start.Add(2*third-time.Hour-time.Second)))
	second := serial(start.Add(2*third - time.Hour))
	assert.NotEqual(t, first, second)
	assert.Equal(t, second, serial(start.Add(2*third)))
	assert.NotEqual(t, second, serial(start.AddDate(-1, 0, 0)), "the clock went back")
	assert.NotEmpty(t, serial(start.AddDate(11, 0, 0)), "the authority has ended")
}

func TestSourceServesManyAtOnce(t *testing.T) {
	c := &clock{at: start}
	source := newSource(t, newCA(t), c)
	c.set(start.Add(25 * 24 * time.Hour))
	var (
		wait    sync.WaitGroup
		mu      sync.Mutex
		serials = map[string]bool{}
	)
	for range 32 {
		wait.Go(func() {
			certificate, err := source.GetCertificate(nil)
			mu.Lock()
			defer mu.Unlock()
			if assert.NoError(t, err) {
				serials[certificate.Leaf.SerialNumber.String()] = true
			}
		})
	}
	wait.Wait()
	assert.Len(t, serials, 1, "one renewal for all")
}

func TestNewSourceRefusesNoNames(t *testing.T) {
	_, err := pki.NewSource(newCA(t), pki.Names{}, time.Now)
	require.ErrorContains(t, err, "no name")
}
