//go:build vm && full

package debian_test

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// gateway stands between a guest and its service, with a certificate of its own:
// guests rely on none. While nothing answers behind it, it drops connections.
type gateway struct {
	url string
	// lose is how many releases that the service gave are lost on their way.
	lose atomic.Int32
}

// newGateway passes on to a service that listens on this host's loopback.
func newGateway(t *testing.T, port int) *gateway {
	t.Helper()
	target := &url.URL{Scheme: "https", Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	g := new(gateway)
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true},
		ModifyResponse: func(r *http.Response) error {
			if strings.HasSuffix(r.Request.URL.Path, "/boot/release") && r.StatusCode == http.StatusOK && g.lose.Add(-1) >= 0 {
				panic(http.ErrAbortHandler)
			}
			return nil
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	server := httptest.NewTLSServer(proxy)
	t.Cleanup(server.Close)
	g.url = inGuest(t, server.Listener)
	return g
}

// silent is a server that takes connections and, while it hangs, says nothing.
type silent struct {
	url   string
	hangs atomic.Bool
	held  atomic.Int32
}

func newSilent(t *testing.T) *silent {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	s := &silent{url: inGuest(t, l)}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if s.hangs.Load() {
				s.held.Add(1)
				defer conn.Close()
				continue
			}
			_ = conn.Close()
		}
	}()
	return s
}

// inGuest is where a guest reaches a listener on this host's loopback.
func inGuest(t *testing.T, l net.Listener) string {
	t.Helper()
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	return "https://10.0.2.2:" + port
}

func portOf(t *testing.T, text string) int {
	t.Helper()
	u, err := url.Parse(text)
	require.NoError(t, err)
	port, err := net.LookupPort("tcp", u.Port())
	require.NoError(t, err)
	return port
}
