package vault_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keywright.dev/clients/vault"
	"keywright.dev/kms/root/roottest"
)

// The engine itself is not here: test/vault has the real one. This server says
// what a test has it say.
type server struct {
	*httptest.Server
	folder string // of credentials

	mu      sync.Mutex
	answers map[string]http.HandlerFunc // by path
	asked   []asked
	now     time.Time
	waited  []time.Duration
}

type asked struct {
	path   string
	body   string
	header http.Header
}

const (
	encrypt = "/v1/transit/encrypt/k"
	decrypt = "/v1/transit/decrypt/k"
	keys    = "/v1/transit/keys/k"
	login   = "/v1/auth/approle/login"
	lookUp  = "/v1/auth/token/lookup-self"
	renew   = "/v1/auth/token/renew-self"

	token    = "hvs.CAESIJ3xqFhkXh2Yl0pO7Qbn"
	secretID = "3b1f8a52-8c4c-4ad5-a2f7-6e0d3b0f4a77"

	byToken   = "auth=token&token-file=token"
	byAppRole = "auth=approle&role-id-file=role-id&secret-id-file=secret-id"
)

// ciphertext is one in the form that Transit gives.
func ciphertext(version int) string {
	return fmt.Sprintf("vault:v%d:%s", version, base64.StdEncoding.EncodeToString(make([]byte, 60)))
}

func started(t *testing.T) *server {
	t.Helper()
	s := &server{folder: t.TempDir(), now: time.Unix(1_800_000_000, 0)}
	s.answers = map[string]http.HandlerFunc{
		encrypt: says(200, `{"data":{"ciphertext":"`+ciphertext(3)+`"}}`),
		decrypt: says(200, `{"data":{"plaintext":"`+base64.StdEncoding.EncodeToString(roottest.Key(1).Expose())+`"}}`),
		keys:    says(200, `{"data":{"type":"aes256-gcm96","latest_version":3,"min_decryption_version":1}}`),
		login:   says(200, `{"auth":{"client_token":"`+token+`","lease_duration":3600,"renewable":true}}`),
		lookUp:  says(200, `{"data":{"ttl":0,"renewable":false}}`),
	}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	s.write(t, "token", token+"\n")
	s.write(t, "role-id", "5f0c6b9e\n")
	s.write(t, "secret-id", secretID)
	return s
}

// says answers the same each time.
func says(status int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}
}

func (s *server) write(t *testing.T, name, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(s.folder, name), []byte(text), 0o600))
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	s.mu.Lock()
	s.asked = append(s.asked, asked{r.URL.Path, string(body), r.Header})
	answer := s.answers[r.URL.Path]
	s.mu.Unlock()
	if answer == nil {
		answer = says(404, `{"errors":[]}`)
	}
	answer(w, r)
}

func (s *server) on(path string, answer http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[path] = answer
}

// after has the clock go on.
func (s *server) after(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = s.now.Add(d)
}

// requests returns those of a path.
func (s *server) requests(path string) []asked {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []asked
	for _, a := range s.asked {
		if a.path == path {
			found = append(found, a)
		}
	}
	return found
}

func (s *server) options() vault.Options {
	return vault.Options{
		Clock: func() time.Time {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.now
		},
		Wait: func(ctx context.Context, d time.Duration) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.waited = append(s.waited, d)
			return ctx.Err()
		},
		Random:      zeros{},
		Credentials: s.folder,
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func (s *server) open(t *testing.T, query string) *vault.Root {
	t.Helper()
	uri := "vault://" + strings.TrimPrefix(s.URL, "http://") + "/transit/k?tls=off&" + query
	r, err := vault.Open(t.Context(), uri, s.options())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

func unwrap(t *testing.T, r *vault.Root) error {
	t.Helper()
	key, err := r.Unwrap(t.Context(), []byte(ciphertext(2)), []byte("c"))
	require.Equal(t, err == nil, key.Len() > 0)
	return err
}

func wrap(t *testing.T, r *vault.Root) error {
	t.Helper()
	_, err := r.Wrap(t.Context(), roottest.Key(1), []byte("c"))
	return err
}

// echo answers with all that it was sent, in Vault's form.
func echo(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		text, _ := json.Marshal(map[string][]string{"errors": {string(body), r.Header.Get("X-Vault-Token"), "text"}})
		says(status, string(text))(w, r)
	}
}
