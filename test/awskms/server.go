// Package awskms is the counterpart of clients/awskms in tests: a server that
// speaks the JSON protocol of AWS KMS, as far as symmetric keys need it.
//
// Invariants:
//   - It recomputes the signature of each request (Signature Version 4) from what
//     arrived, and answers nothing to who did not sign it.
//   - It decides by an IAM policy document, an action, a key and an encryption
//     context, as [Server.Allow] was told.
//   - Ciphertexts are real: AES-256-GCM, bound to the key and to the encryption
//     context.
//
// It refuses to share code with the SDK, whose mistakes it would repeat, and to
// be linked into anything but tests.
package awskms

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// Server is one account's KMS, in every region.
type Server struct {
	URL string

	mu      sync.Mutex
	closing chan struct{}
	users   map[string]*user
	keys    map[string]*regional // by ARN
	faults  faults
	calls   map[string]int
}

type user struct {
	secret, token string
	expired       bool
	policy        Policy
}

// Account is that of all keys.
const Account = "111122223333"

// Start starts a server on a loopback address that ends with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	return start(t, httptest.NewServer)
}

// StartTLS starts one that speaks TLS, and returns its certificate in PEM.
func StartTLS(t testing.TB) (s *Server, certificate []byte) {
	t.Helper()
	s = start(t, func(h http.Handler) *httptest.Server {
		server := httptest.NewUnstartedServer(h)
		server.Config.ErrorLog = log.New(io.Discard, "", 0) // who distrusts it breaks off
		server.StartTLS()
		certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
		return server
	})
	return s, certificate
}

func start(t testing.TB, serve func(http.Handler) *httptest.Server) *Server {
	s := &Server{
		closing: make(chan struct{}),
		users:   make(map[string]*user), keys: make(map[string]*regional), calls: make(map[string]int),
	}
	server := serve(s)
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(s.closing) })
	s.URL = server.URL
	return s
}

// Credentials are what a user signs with.
type Credentials struct{ AccessKeyID, SecretAccessKey, SessionToken string }

// AddUser makes somebody who may do everything.
func (s *Server) AddUser(t testing.TB) Credentials {
	c := Credentials{"AKIA" + randomHex(t, 8), randomHex(t, 20), randomHex(t, 16)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users[c.AccessKeyID] = &user{secret: c.SecretAccessKey, token: c.SessionToken, policy: Everything()}
	return c
}

// Allow replaces the policy of a user.
func (s *Server) Allow(c Credentials, p Policy) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users[c.AccessKeyID].policy = p
}

// Expire ends the session of a user.
func (s *Server) Expire(c Credentials) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users[c.AccessKeyID].expired = true
}

// Calls returns how many requests named this operation, refused ones included.
func (s *Server) Calls(operation string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[operation]
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		return
	}
	s.mu.Lock()
	s.calls[operationOf(r)]++
	fault := s.faults.next()
	w.Header().Set("Date", s.now().UTC().Format(http.TimeFormat))
	s.mu.Unlock()
	if s.stumble(w, r, fault, body) {
		return
	}
	answer, refusal := s.serve(r, body)
	fault.lie.write(w, answer, refusal)
}

func (s *Server) serve(r *http.Request, body []byte) (any, *refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	caller, region, refused := s.authenticate(r, body)
	if refused != nil {
		return nil, refused
	}
	return s.operate(caller, region, operationOf(r), body)
}

// now is the time that the server believes it is.
func (s *Server) now() time.Time { return time.Now().Add(s.faults.skew) }

func randomHex(t testing.TB, n int) string {
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(b)
}
