package vault

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/builtin/logical/transit"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

const mount = "team/transit"

// front is what stands around the Transit engine in a Vault.
type front struct {
	backend logical.Backend
	storage logical.Storage
	server  *httptest.Server
	ca      string // file with the server's certificate
	signIn  signIn

	mu       sync.Mutex
	tokens   map[string]time.Time // by token, when it ends; zero: never
	policy   policy
	down     bool
	sealed   bool
	throttle int
	slow     time.Duration
	asked    map[string]int // requests by path
}

// engine is a Transit engine on storage of its own.
func engine(tb testing.TB) (logical.Backend, logical.Storage) {
	storage := &logical.InmemStorage{}
	config := &logical.BackendConfig{
		Logger: hclog.NewNullLogger(), System: logical.TestSystemView(), StorageView: storage, Config: map[string]string{},
	}
	backend, err := transit.Factory(tb.Context(), config)
	require.NoError(tb, err)
	return backend, storage
}

// started is a front without a key.
func started(tb testing.TB) *front {
	f := &front{tokens: map[string]time.Time{}, asked: map[string]int{}, policy: shippedPolicy(tb)}
	f.backend, f.storage = engine(tb)
	f.signIn = newSignIn(tb)
	f.server = httptest.NewUnstartedServer(f)
	f.server.TLS = f.signIn.serverTLS()
	f.server.Config.ErrorLog = log.New(io.Discard, "", 0) // of connections that clients give up
	f.server.EnableHTTP2 = true                           // as Vault has
	f.server.StartTLS()
	tb.Cleanup(f.server.Close)
	f.ca = filepath.Join(tb.TempDir(), "ca.pem")
	writeCertificate(tb, f.ca, f.server.Certificate().Raw)
	return f
}

// operate has the engine do something on behalf of Vault's operator.
func (f *front) operate(tb testing.TB, op logical.Operation, path string, data map[string]any) *logical.Response {
	tb.Helper()
	resp, err := f.backend.HandleRequest(tb.Context(), &logical.Request{Operation: op, Path: path, Storage: f.storage, Data: data})
	require.NoError(tb, err)
	require.NoError(tb, resp.Error())
	return resp
}

func (f *front) makeKey(tb testing.TB, name string, data map[string]any) {
	tb.Helper()
	f.operate(tb, logical.UpdateOperation, "keys/"+name, data)
}

// set changes how the front behaves.
func (f *front) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *front) count(path string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[path]
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 64<<20))
	if err != nil || f.fails(w, r) {
		return
	}
	path, versioned := strings.CutPrefix(r.URL.Path, "/v1/")
	var data map[string]any
	decoder := json.NewDecoder(strings.NewReader(string(body)))
	decoder.UseNumber()
	if !versioned || len(body) > 0 && decoder.Decode(&data) != nil {
		fail(w, http.StatusBadRequest, "failed to parse JSON input")
		return
	}
	if strings.HasPrefix(path, "auth/") {
		f.serveAuth(w, r, path, data)
		return
	}
	f.serveTransit(w, r, path, data)
}

// fails plays the outages. It counts what is asked.
func (f *front) fails(w http.ResponseWriter, r *http.Request) bool {
	f.mu.Lock()
	f.asked[strings.TrimPrefix(r.URL.Path, "/v1/")]++
	down, sealed, slow, throttled := f.down, f.sealed, f.slow, f.throttle > 0
	if throttled {
		f.throttle--
	}
	f.mu.Unlock()
	switch {
	case down:
		panic(http.ErrAbortHandler)
	case slow > 0:
		return isGone(r.Context(), slow)
	case throttled:
		w.Header().Set("Retry-After", "0")
		fail(w, http.StatusTooManyRequests, `request path "transit": rate limit quota exceeded`)
	case sealed:
		fail(w, http.StatusServiceUnavailable, "Vault is sealed")
	default:
		return false
	}
	return true
}

// isGone waits, and reports whether who asks has gone meanwhile.
func isGone(ctx context.Context, d time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-ctx.Done()
	return ctx.Err() == context.Canceled
}

func (f *front) serveTransit(w http.ResponseWriter, r *http.Request, path string, data map[string]any) {
	if !f.knows(r.Header.Get("X-Vault-Token")) {
		fail(w, http.StatusForbidden, "permission denied", "invalid token")
		return
	}
	below, ours := strings.CutPrefix(path, mount+"/")
	if !ours || r.Header.Get("X-Vault-Namespace") != "" {
		fail(w, http.StatusNotFound, `no handler for route "`+path+`". route entry not found.`)
		return
	}
	req := &logical.Request{Operation: logical.ReadOperation, Path: below, Storage: f.storage, Data: data}
	if r.Method != http.MethodGet {
		req.Operation = logical.UpdateOperation
		checks, exists, err := f.backend.HandleExistenceCheck(r.Context(), req)
		if err == nil && checks && !exists {
			req.Operation = logical.CreateOperation
		}
	}
	if !f.allows(path, req.Operation) {
		fail(w, http.StatusForbidden, "1 error occurred:\n\t* permission denied\n\n")
		return
	}
	resp, err := f.backend.HandleRequest(r.Context(), req)
	respond(w, req, resp, err)
}

func (f *front) knows(token string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	end, known := f.tokens[token]
	return known && (end.IsZero() || time.Now().Before(end))
}

func (f *front) allows(path string, op logical.Operation) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.policy.allows(path, string(op))
}

func respond(w http.ResponseWriter, req *logical.Request, resp *logical.Response, err error) {
	status, err := logical.RespondErrorCommon(req, resp, err)
	switch {
	case err != nil:
		fail(w, status, err.Error())
	case status != 0:
		fail(w, status)
	case resp == nil:
		w.WriteHeader(http.StatusNoContent)
	default:
		answer(w, http.StatusOK, map[string]any{"request_id": "r", "data": resp.Data})
	}
}

func fail(w http.ResponseWriter, status int, texts ...string) {
	if texts == nil {
		texts = []string{}
	}
	answer(w, status, map[string]any{"errors": texts})
}

func answer(w http.ResponseWriter, status int, body map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// policy is capabilities by path.
type policy map[string][]string

func (p policy) allows(path, capability string) bool {
	for _, granted := range p[path] {
		if granted == capability {
			return true
		}
	}
	return false
}

func (p policy) without(capability string) policy {
	narrower := maps.Clone(p)
	for path, granted := range p {
		if strings.Join(granted, " ") == capability {
			delete(narrower, path)
		}
	}
	return narrower
}
