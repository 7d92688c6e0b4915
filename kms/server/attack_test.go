package server_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/cmd/keywright/config"
	"keywright.dev/kms/api"
	"keywright.dev/kms/server"
)

// concrete puts a name into a path.
func concrete(path string) string { return strings.ReplaceAll(path, "{ref}", "web-17") }

// codeOf reads the code of an error's body.
func codeOf(t *testing.T, body string) api.Code {
	t.Helper()
	var e api.Error
	require.NoError(t, json.Unmarshal([]byte(body), &e), body)
	assert.NotZero(t, e.Number)
	assert.NotEmpty(t, e.Request)
	return e.Code
}

// TestAttack05NoRouteWithoutCredentials walks every route of every listener as
// somebody without credentials (CVE-2026-1709).
func TestAttack05NoRouteWithoutCredentials(t *testing.T) {
	r := newRig(t, nil)
	r.active("web-17")
	routes := r.service.Server.Routes()
	listeners := []string{"guest", "operator", "metrics"}
	require.NotEmpty(t, routes)
	for _, route := range routes {
		assert.NotEmpty(t, route.Action, route.Path)
		for _, listener := range listeners {
			if listener == string(route.Listener) {
				continue
			}
			for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
				response, body := r.send(listener, method, concrete(route.Path), "{}")
				assert.Equal(t, http.StatusNotFound, response.StatusCode,
					"%s %s of the %s listener is served on the %s listener", method, route.Path, route.Listener, listener)
				codeOf(t, body)
			}
		}
	}
	for _, route := range routes {
		if route.Listener != server.GuestListener || strings.HasSuffix(route.Path, "/challenge") {
			continue
		}
		response, body := r.send("guest", http.MethodPost, route.Path, "{}")
		assert.Equal(t, http.StatusForbidden, response.StatusCode, route.Path)
		assert.NotContains(t, body, "sealed")
	}
}

// TestAttack05PathsAreComparedAsTheyAre tries other ways to write a path.
func TestAttack05PathsAreComparedAsTheyAre(t *testing.T) {
	r := newRig(t, nil)
	for _, path := range []string{
		"/v1/machines", "//v1/machines", "/v1/boot/../machines", "/v1/boot/challenge/..%2f..%2fmachines", "/v1/boot/release/",
		"/V1/boot/release", "/v1/boot%2Frelease", "/v1/boot/challenge?x=1", "/", "/openapi.json", "/docs", "/schemas/Error.json", "/debug/pprof/",
	} {
		response, body := r.send("guest", http.MethodPost, path, "{}")
		assert.Equal(t, http.StatusNotFound, response.StatusCode, path)
		assert.Equal(t, api.CodeNotFound, codeOf(t, body))
	}
	for _, path := range []string{"/openapi.json", "/docs", "/schemas/Error.json", "/v1/boot/release", "/metrics"} {
		response, _ := r.send("operator", http.MethodGet, path, "")
		assert.Equal(t, http.StatusNotFound, response.StatusCode, path)
	}
}

// TestAttack17NoBearerPathToAKey holds that no token or cookie changes any
// answer (trustee#483).
func TestAttack17NoBearerPathToAKey(t *testing.T) {
	r := newRig(t, func(c *config.Config) { c.Limits.RequestsBurst = 1000 }) // of one source
	m := r.active("web-17")
	ctx, guest := t.Context(), r.guest("127.0.0.1")
	request, err := m.PrepareRelease(ctx, guest)
	require.NoError(t, err)
	attested, err := request.Attest()
	require.NoError(t, err)
	attested.Evidence.Signature[len(attested.Evidence.Signature)-1] ^= 1
	forged, err := api.Encode(api.ReleaseRequest{Attested: attested})
	require.NoError(t, err)

	bodies := map[string]string{"empty": "{}", "forged": string(forged)}
	headers := [][2]string{
		{"Authorization", "Bearer eyJhbGciOiJub25lIn0.e30."}, {"Authorization", "Basic cm9vdDpyb290"},
		{"Cookie", "session=admin; kbs-session-id=0"}, {"X-Forwarded-For", "127.0.0.1"}, {"X-Forwarded-User", "root"},
		{"X-Remote-User", "root"}, {"X-Api-Key", "0"}, {"Attestation", "true"}, {"X-Http-Method-Override", "GET"},
		{"X-Original-Url", api.PathMachines}, {"X-Rewrite-Url", api.PathMachines},
	}
	for _, route := range r.service.Server.Routes() {
		if route.Listener != server.GuestListener || strings.HasSuffix(route.Path, "/challenge") {
			continue
		}
		for name, body := range bodies {
			plain, plainBody := r.send("guest", http.MethodPost, route.Path, body)
			require.NotEqual(t, http.StatusOK, plain.StatusCode)
			for _, header := range headers {
				response, text := r.send("guest", http.MethodPost, route.Path, body, header[0], header[1])
				assert.Equal(t, plain.StatusCode, response.StatusCode, "%s %s with %s", name, route.Path, header[0])
				assert.Equal(t, codeOf(t, plainBody), codeOf(t, text))
				assert.Empty(t, response.Header.Get("Set-Cookie"))
				assert.Empty(t, response.Header.Get("Www-Authenticate"))
			}
		}
	}
}

// TestAttack19RequestsThatCostTooMuch sends oversized, deep, compressed and slow
// requests (keylime#854): each gets its code, and the next machine its keys.
func TestAttack19RequestsThatCostTooMuch(t *testing.T) {
	r := newRig(t, func(c *config.Config) { c.Limits.BodyTimeout = config.Duration(300 * time.Millisecond) })
	m := r.active("web-17")

	t.Run("oversized", func(t *testing.T) {
		for path, limit := range map[string]int{
			api.PathBootRelease: api.MaxEvidenceRequest, api.PathEnrollCommit: api.MaxEvidenceRequest,
			api.PathBootChallenge: api.MaxRequest, api.PathEnrollBegin: api.MaxRequest,
		} {
			response, body := r.send("guest", http.MethodPost, path, strings.Repeat(" ", limit+1))
			assert.Equal(t, http.StatusRequestEntityTooLarge, response.StatusCode, path)
			assert.Equal(t, api.CodeTooLarge, codeOf(t, body))
			assert.Equal(t, "413 ", r.chunked(path, limit+1)[9:13], path)
		}
	})
	t.Run("header", func(t *testing.T) {
		response, _ := r.send("guest", http.MethodPost, api.PathBootChallenge, "{}", "X", strings.Repeat("a", 64<<10))
		assert.Equal(t, http.StatusRequestHeaderFieldsTooLarge, response.StatusCode)
	})
	t.Run("deep", func(t *testing.T) {
		for _, body := range []string{
			strings.Repeat("[", 500_000), `{"evidence":` + strings.Repeat(`{"quote":`, 100_000), `{"machine":` + strings.Repeat("[", 500_000),
		} {
			response, text := r.send("guest", http.MethodPost, api.PathBootRelease, body)
			assert.Equal(t, http.StatusBadRequest, response.StatusCode)
			assert.Equal(t, api.CodeMalformed, codeOf(t, text))
		}
	})
	t.Run("compressed", func(t *testing.T) {
		var bomb bytes.Buffer
		w := gzip.NewWriter(&bomb)
		_, err := w.Write(bytes.Repeat([]byte(" "), 64<<20))
		require.NoError(t, err)
		require.NoError(t, w.Close())
		response, body := r.send("guest", http.MethodPost, api.PathBootRelease, bomb.String(), "Content-Encoding", "gzip")
		assert.Equal(t, http.StatusUnsupportedMediaType, response.StatusCode)
		assert.Equal(t, api.CodeMediaType, codeOf(t, body))
		for _, media := range []string{"text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16", "multipart/form-data; boundary=x", "application/json;;"} {
			response, _ = r.send("guest", http.MethodPost, api.PathBootRelease, "{}", "Content-Type", media)
			assert.Equal(t, http.StatusUnsupportedMediaType, response.StatusCode, media)
		}
	})
	t.Run("slow", func(t *testing.T) {
		conn := r.dialTLS()
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{", api.PathBootRelease)
		answer := readSome(t, conn)
		assert.Equal(t, "HTTP/1.1 408 ", answer[:13])
		assert.Contains(t, answer, "Connection: close")
	})
	_, err := m.Unlock(t.Context(), r.guest("127.0.0.1"))
	require.NoError(t, err)
}

// chunked sends a body that does not announce its size.
func (r *rig) chunked(path string, size int) string {
	conn := r.dialTLS()
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n", path, size)
	_, _ = conn.Write(bytes.Repeat([]byte(" "), size)) // it may be cut off
	return readSome(r.t, conn)
}

func readSome(t *testing.T, conn net.Conn) string {
	t.Helper()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	require.NoError(t, err)
	return string(buf[:n])
}

// TestAttack19TooManyRequests floods from one source: it is told when to come
// again, and others are served.
func TestAttack19TooManyRequests(t *testing.T) {
	r := newRig(t, func(c *config.Config) { c.Limits.RequestsPerSecond, c.Limits.RequestsBurst = 0.5, 4 })
	flooder, other := r.guest("127.0.0.2"), r.guest("127.0.0.3")
	for range 4 {
		_, err := flooder.Challenge(t.Context())
		require.NoError(t, err)
	}
	_, err := flooder.Challenge(t.Context())
	refused := refusedWith(t, api.CodeRate, err)
	assert.Equal(t, 2, refused.RetryAfter)
	_, err = other.Challenge(t.Context())
	require.NoError(t, err)
}

// TestAttack19TooManyConnections opens more than are allowed and sends nothing:
// a machine's new connection takes the place of the one that waited longest.
func TestAttack19TooManyConnections(t *testing.T) {
	r := newRig(t, func(c *config.Config) { c.Limits.Connections, c.Limits.ConnectionsPerSource = 16, 8 })
	m := r.active("web-17")
	var held []net.Conn
	for i := range 64 {
		dial := dialFrom(fmt.Sprintf("127.0.1.%d", i%16+1))
		conn, err := dial(t.Context(), "tcp", r.guestAddress())
		require.NoError(t, err)
		held = append(held, conn)
	}
	// Who is in has a moment to send a request; then the machine's turn comes.
	require.Eventually(t, func() bool {
		_, err := m.Unlock(t.Context(), r.guest("127.0.0.9"))
		return err == nil
	}, 10*time.Second, 100*time.Millisecond)
	for _, conn := range held {
		conn.Close()
	}
}

// TestAttack19SlowBodiesGiveWay takes every connection with a body that never
// ends: a machine's new connection takes the place of the one that has been
// arriving longest.
func TestAttack19SlowBodiesGiveWay(t *testing.T) {
	r := newRig(t, func(c *config.Config) {
		c.Limits.Connections, c.Limits.ConnectionsPerSource = 16, 8
		c.Limits.BodyTimeout = config.Duration(10 * time.Minute)
	})
	m := r.active("web-17")
	r.measured("keywright_guest_connections", 0)
	answers := make(chan string, 16)
	for i := range 16 {
		conn := r.secure(dialFrom(fmt.Sprintf("127.0.1.%d", i/8+1)))
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{", api.PathBootRelease)
		go func() {
			line, _ := bufio.NewReader(conn).ReadString('\n') // it may be cut off when the test ends
			answers <- line
		}()
	}
	r.measured("keywright_guest_body_bytes", 16*101*2)
	require.Eventually(t, func() bool {
		_, err := m.Unlock(t.Context(), r.guest("127.0.0.9"))
		return err == nil
	}, 10*time.Second, 100*time.Millisecond)
	assert.Equal(t, "HTTP/1.1 503 Service Unavailable\r\n", <-answers, "who made room is told to come again")
}

// TestAttack19SlowBodiesHoldWhatTheySent fills the memory for bodies from one
// source with bodies that never end: another source is served.
func TestAttack19SlowBodiesHoldWhatTheySent(t *testing.T) {
	r := newRig(t, func(c *config.Config) { c.Limits.BodyMemory = 16 << 20 })
	m := r.active("web-17")
	dial := dialFrom("127.0.2.1")
	for range 8 {
		conn := r.secure(dial)
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", api.PathBootRelease, api.MaxEvidenceRequest)
		_, err := conn.Write(bytes.Repeat([]byte(" "), api.MaxEvidenceRequest-1))
		if err != nil {
			break
		}
	}
	// The source holds its share; what it sends beyond that is turned away.
	require.Eventually(t, func() bool {
		client, err := api.NewGuestClient(r.service.GuestURL, dial)
		require.NoError(t, err)
		defer client.Close()
		_, err = client.Challenge(t.Context())
		var known *api.Error
		return err != nil && assert.ErrorAs(t, err, &known) && known.Code == api.CodeBusy && known.RetryAfter > 0
	}, 5*time.Second, 20*time.Millisecond)
	_, err := m.Unlock(t.Context(), r.guest("127.0.0.9"))
	require.NoError(t, err)
}

func (r *rig) secure(dial api.DialFunc) net.Conn {
	r.t.Helper()
	conn, err := dial(context.Background(), "tcp", r.guestAddress())
	require.NoError(r.t, err)
	secured := tlsClient(conn)
	r.t.Cleanup(func() { secured.Close() })
	return secured
}

// TestAttack05AnotherUserIsRefused holds that only the service's user and root
// operate it, whatever the socket's mode, and that an attempt is recorded.
func TestAttack05AnotherUserIsRefused(t *testing.T) {
	r := newRig(t, nil)
	ask := func(uid int, path string) int {
		recorder := httptest.NewRecorder()
		r.service.Server.ServeOperator(recorder, httptest.NewRequest(http.MethodGet, path, nil), server.Peer{UID: uid})
		return recorder.Code
	}
	for _, uid := range []int{65534, -1, os.Geteuid() + 1} {
		for _, route := range r.service.Server.Routes() {
			assert.Equal(t, http.StatusForbidden, ask(uid, concrete(route.Path)), "uid %d, %s", uid, route.Path)
		}
	}
	assert.Equal(t, http.StatusOK, ask(os.Geteuid(), api.PathStatus))
	assert.Equal(t, http.StatusOK, ask(0, api.PathStatus))
	entries, err := r.operator().AuditEntries(t.Context(), api.ListQuery{Action: "operator.connect"})
	require.NoError(t, err)
	require.NotEmpty(t, entries.Items)
	assert.Equal(t, "refused", entries.Items[0].Outcome)
}
