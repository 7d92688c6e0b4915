//go:build integration

package main

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/audit"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/pki"
	"keywright.dev/kms/policy"
	"keywright.dev/kms/root"
	"keywright.dev/kms/root/file"
	"keywright.dev/kms/secret"
	"keywright.dev/kms/server"
	"keywright.dev/kms/store/sqlite"
)

// service is a whole service on loopback: real store, real policies, real
// listeners.
type service struct {
	*kms.Service
	url      string
	identity *pki.Identity
	log      *audit.Signer
	store    *sqlite.Store
	engine   *policy.Engine
	stop     func() // the listeners
}

func startService(t *testing.T) *service {
	t.Helper()
	identity, err := pki.NewIdentity()
	require.NoError(t, err)
	return startServiceAs(t, identity)
}

// startServiceAs starts a service with an identity key of the caller's.
func startServiceAs(t *testing.T, identity *pki.Identity) *service {
	t.Helper()
	begun := time.Now()
	ctx, dir := t.Context(), t.TempDir()
	store, err := sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(dir, "store.db"), Clock: time.Now})
	require.NoError(t, err)
	rootPath := filepath.Join(dir, "root.key")
	require.NoError(t, file.Create(rootPath, rand.Reader))
	rootKey, err := file.Open(rootPath)
	require.NoError(t, err)
	keys, err := kms.OpenKeys(ctx, kms.KeysConfig{
		Store: store, Roots: []root.Root{rootKey}, Clock: time.Now, Uptime: func() time.Duration { return time.Since(begun) }, Random: rand.Reader,
	})
	require.NoError(t, err)
	challenges, err := kms.OpenChallenges(ctx, keys, time.Now, rand.Reader)
	require.NoError(t, err)
	documents, err := policy.Shipped()
	require.NoError(t, err)
	engine, err := policy.New(documents...)
	require.NoError(t, err)
	_, logKey, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	signer, err := audit.NewSigner("keywright.test/log", logKey)
	require.NoError(t, err)
	maker := identityMaker(identity)
	identities, err := kms.OpenIdentities(ctx, keys, maker)
	require.NoError(t, err)
	domain, err := kms.New(kms.Config{
		Store: store, Keys: keys, Challenges: challenges, Identities: identities, Identity: maker, Log: signer,
		Trust:  func(exchange.EK, []byte, time.Time) (string, error) { return kms.TrustByPerson, nil },
		Policy: func() kms.Policy { return engine }, Clock: time.Now, Random: rand.Reader,
	})
	require.NoError(t, err)
	s := &service{Service: domain, identity: identity, log: signer, store: store, engine: engine}
	t.Cleanup(func() { assert.NoError(t, store.Close()) })
	s.listen(t, "127.0.0.1:0")
	t.Cleanup(func() { s.stop() })
	return s
}

// identityMaker makes the first key that is given, and then others.
func identityMaker(first *pki.Identity) kms.IdentityMaker {
	return kms.IdentityMaker{Open: openIdentity, Make: func() (string, []byte, secret.Bytes, error) {
		if first == nil {
			return pki.MakeIdentity()
		}
		made := first
		first = nil
		private, err := made.Marshal()
		return made.Fingerprint().String(), made.SPKI(), private, err
	}}
}

func openIdentity(private secret.Bytes) (crypto.Signer, error) { return pki.OpenIdentity(private) }

func (s *service) listen(t *testing.T, address string) {
	t.Helper()
	ca, err := pki.NewCA(time.Now())
	require.NoError(t, err)
	certificates, err := pki.NewSource(ca, pki.Names{IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}, time.Now)
	require.NoError(t, err)
	listeners := server.Listeners{
		Guest: loopback(t, "tcp", address), Metrics: loopback(t, "tcp", "127.0.0.1:0"),
		Operator: loopback(t, "unix", filepath.Join(shortDir(t), "operator")),
	}
	s.url = "https://" + listeners.Guest.Addr().String()
	srv, err := server.New(server.Config{
		Version: "test", Service: s.Service, Store: s.store, Log: s.log.Verifier(), Policy: func() *policy.Engine { return s.engine },
		TLS: pki.TLSConfig(certificates.GetCertificate), GuestURL: s.url,
		Owner: os.Geteuid(), Limits: server.DefaultLimits(), Upkeep: func(context.Context) error { return nil },
		Metrics: server.NewMetrics(), Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Clock: time.Now, Random: rand.Reader,
	})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { assert.NoError(t, srv.Run(ctx, listeners)) })
	s.stop = func() { stop(); running.Wait() }
}

func loopback(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), network, address)
	require.NoError(t, err)
	return l
}

// shortDir returns a directory whose path leaves room for a socket's name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kw") //nolint:usetesting // the test's own directory has a path too long for a socket
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(dir)) })
	return dir
}

func (s *service) pin() string { return exchange.FormatFingerprint(s.ServiceKey()) }

func (s *service) approve(t *testing.T, machine string) {
	t.Helper()
	_, err := s.ApproveMachine(t.Context(), operator(), machine, kms.Approval{EKHash: machine, Name: "web-" + exchange.ShortID(machine)})
	require.NoError(t, err)
}

func (s *service) revoke(t *testing.T, machine string) {
	t.Helper()
	_, _, err := s.RevokeMachine(t.Context(), operator(), machine, "a test")
	require.NoError(t, err)
}

// receipt verifies a receipt and returns its entry.
func (s *service) receipt(t *testing.T, receipt []byte) audit.Entry {
	t.Helper()
	entry, err := s.log.Verifier().Verify(receipt)
	require.NoError(t, err)
	return entry
}

// slots returns the keyslots that the service knows of a volume.
func (s *service) slots(t *testing.T, id string) []int {
	t.Helper()
	volumes, err := s.store.Volumes(t.Context(), "", "", 10)
	require.NoError(t, err)
	i := slices.IndexFunc(volumes, func(v kms.Volume) bool { return v.ID == id })
	require.GreaterOrEqual(t, i, 0)
	report, err := kms.ParseInventory(volumes[i].Inventory)
	require.NoError(t, err)
	var numbers []int
	for _, slot := range report.Slots {
		numbers = append(numbers, slot.ID)
	}
	return numbers
}

// startProxy starts a server that passes requests on to url and changes the
// answers; one that becomes nil is lost with its connection.
func startProxy(t *testing.T, url string, change func(path string, body []byte) []byte) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	proxy := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		request, err := http.NewRequestWithContext(r.Context(), r.Method, url+r.URL.Path, r.Body)
		if !assert.NoError(t, err) {
			return
		}
		request.Header = r.Header
		response, err := client.Do(request)
		if !assert.NoError(t, err) {
			return
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		assert.NoError(t, err)
		if body = change(r.URL.Path, body); body == nil {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(response.StatusCode)
		_, _ = w.Write(body)
	}))
	t.Cleanup(func() { proxy.Close(); client.CloseIdleConnections() })
	return proxy.URL
}

func operator() kms.Operator {
	return kms.Operator{Actor: audit.Actor{Kind: audit.ActorOperator, ID: "uid/0"}}
}
