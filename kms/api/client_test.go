package api_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/api"
)

// guestOf returns a client of a server that answers as told.
func guestOf(t *testing.T, answer http.HandlerFunc) *api.GuestClient {
	t.Helper()
	server := httptest.NewTLSServer(answer)
	t.Cleanup(server.Close)
	client, err := api.NewGuestClient(server.URL, nil)
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return client
}

func TestGuestClientTakesWhatANewerServiceAdds(t *testing.T) {
	client := guestOf(t, func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, api.PathBootChallenge, r.URL.Path)
		assert.Equal(t, "application/json", r.Header.Get("Content-Type"))
		_, _ = io.WriteString(w, `{"challenge":"AQI=","token":"","expires":"2026-01-02T03:04:05Z","selection":"//sA","newer":{"x":1}}`)
	})
	c, err := client.Challenge(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []byte{1, 2}, c.Challenge)
}

func TestGuestClientRefuses(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"an endless answer": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"token":"`+strings.Repeat("A", api.MaxGuestAnswer)+`"}`)
		},
		"a duplicate member": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"token":"","token":""}`)
		},
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://127.0.0.1:1/", http.StatusTemporaryRedirect)
		},
		"an endless header": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("a", 1<<20))
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := guestOf(t, answer).Challenge(t.Context())
			require.Error(t, err)
			var known *api.Error
			assert.NotErrorAs(t, err, &known, "it is not the service's own answer")
		})
	}
}

func TestErrorsAreTheServices(t *testing.T) {
	client := guestOf(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = io.WriteString(w, `{"code":"rate_limited","number":1101,"message":"wait\u001b[2J\u0007 a little","request":"ab\n"}`)
	})
	_, err := client.Challenge(t.Context())
	var known *api.Error
	require.ErrorAs(t, err, &known)
	assert.Equal(t, api.Error{
		Code: api.CodeRate, Number: 1101, Message: "wait[2J a little", Request: "ab", RetryAfter: 7,
	}, *known, "what steers a terminal is gone")
}

func TestErrorsOfAnotherServer(t *testing.T) {
	for status, code := range map[int]api.Code{
		http.StatusBadGateway: api.CodeUnavailable, http.StatusNotFound: api.CodeNotFound, http.StatusTeapot: api.CodeInternal,
	} {
		client := guestOf(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "<html>"+strings.Repeat("x", 1<<20))
		})
		_, err := client.Challenge(t.Context())
		var known *api.Error
		require.ErrorAs(t, err, &known)
		assert.Equal(t, code, known.Code)
		assert.NotContains(t, known.Message, "html")
	}
}

func TestGuestClientWantsTLS13(t *testing.T) {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.StartTLS()
	t.Cleanup(server.Close)
	server.TLS.MaxVersion = 0x0303
	client, err := api.NewGuestClient(server.URL, nil)
	require.NoError(t, err)
	_, err = client.Challenge(t.Context())
	require.ErrorContains(t, err, "protocol version")
}

func TestServerURLs(t *testing.T) {
	for _, bad := range []string{
		"", "keywright:8443", "http://keywright", "https://", "https://a:b@keywright", "https://keywright/path",
		"https://keywright?x=1", "https://keywright#x", "https://%zz",
	} {
		_, err := api.NewGuestClient(bad, nil)
		assert.ErrorContains(t, err, "want https://HOST:PORT", bad)
	}
	_, err := api.NewGuestClient("https://[2001:db8::1]:8443/", nil)
	assert.NoError(t, err)
}

func TestClientsKeepTheDeadline(t *testing.T) {
	blocked := make(chan struct{})
	client := guestOf(t, func(http.ResponseWriter, *http.Request) { <-blocked })
	t.Cleanup(func() { close(blocked) })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := client.Challenge(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

func TestAllGoesThroughPages(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	require.NoError(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pages := map[string]string{"": `{"items":[{"id":"1"},{"id":"2"}],"next":"2"}`, "2": `{"items":[{"id":"3"}]}`}
		assert.Equal(t, "web", r.URL.Query().Get("group"))
		_, _ = io.WriteString(w, pages[r.URL.Query().Get("after")])
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Close() })
	client := api.NewOperatorClient(path)
	t.Cleanup(client.Close)
	var ids []string
	for m, err := range api.All(api.ListQuery{Group: "web"}, func(q api.ListQuery) (api.Page[api.Machine], error) {
		return client.Machines(t.Context(), q)
	}) {
		require.NoError(t, err)
		ids = append(ids, m.ID)
	}
	assert.Equal(t, []string{"1", "2", "3"}, ids)
}
