//go:build integration

package main

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/pki"
)

// between starts a server that stands between a guest and the service, and does
// something of its own with one path.
func between(t *testing.T, s *service, path string, do func(w http.ResponseWriter, r *http.Request, pass http.Handler)) string {
	t.Helper()
	target, err := url.Parse(s.url)
	require.NoError(t, err)
	pass := httputil.NewSingleHostReverseProxy(target)
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	pass.Transport = transport
	proxy := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == path {
			do(w, r, pass)
			return
		}
		pass.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { proxy.Close(); transport.CloseIdleConnections() })
	return proxy.URL
}

// Of an order that is withdrawn when the keyslot stands the agent, or the next boot,
// removes what was made, and the next order makes another.
func TestOrderIsWithdrawnInTheMiddle(t *testing.T) {
	for name, next := range map[string]func(*testing.T, *service, *guest){
		"by the agent": func(t *testing.T, s *service, g *guest) {
			a := g.startAgent([]string{s.url}, s.pin())
			s.awaitNoOrders(t)
			a.end()
		},
		"by a boot": func(t *testing.T, s *service, g *guest) {
			g.boot("ovmf-uki")
			require.NoError(t, g.bootHere(s).err, "what boots are released opens")
		},
	} {
		t.Run(name, func(t *testing.T) { withdrawInTheMiddle(t, next) })
	}
}

func withdrawInTheMiddle(t *testing.T, next func(*testing.T, *service, *guest)) {
	t.Helper()
	s := startService(t)
	g := unlocked(t, s, 1)
	var once sync.Once
	proxy := between(t, s, api.PathRekeyedChallenge, func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		once.Do(func() { s.withdraw(t, g.volumes[0]) })
		pass.ServeHTTP(w, r)
	})
	s.order(t, g.volumes[0], false)
	a := g.startAgent([]string{proxy}, s.pin())
	a.await("KW-1220 not_ordered")
	a.end()
	require.Equal(t, []uint32{1, 2}, versionsOn(t, g.volumes[0]))
	next(t, s, g)
	require.Empty(t, s.orders(t))
	require.Equal(t, []uint32{1}, versionsOn(t, g.volumes[0]))
	require.Len(t, header(t, g.volumes[0]).Inventory().Keyslots, 3, "no orphan keyslot")
	require.False(t, s.volumeOn(t, g.volumes[0]).Foreign)
	g.boot("ovmf-uki")
	require.NoError(t, g.bootHere(s).err)

	s.order(t, g.volumes[0], false)
	a = g.startAgent([]string{s.url}, s.pin())
	s.awaitNoOrders(t)
	a.end()
	s.requireRekeyed(t, g.volumes[0], 2)
}

// TestAttack31ForgedCommitKillsNoKeyslot has whoever stands in between say that the
// new secret is committed, which nobody told the service.
func TestAttack31ForgedCommitKillsNoKeyslot(t *testing.T) {
	s := startService(t)
	stranger, err := pki.NewIdentity()
	require.NoError(t, err)
	sign := func(key *pki.Identity, shown, statement, answer []byte) api.Sealed {
		signature, err := exchange.SignResponse(key, statement, answer)
		assert.NoError(t, err)
		return api.Sealed{Response: answer, Signature: signature, ServiceKey: shown}
	}
	for name, forge := range map[string]func(statement, answer []byte) api.Sealed{
		"unsigned": func(_, answer []byte) api.Sealed {
			return api.Sealed{Response: answer, ServiceKey: s.identity.SPKI()}
		},
		"another key": func(statement, answer []byte) api.Sealed {
			return sign(stranger, stranger.SPKI(), statement, answer)
		},
		"another key in the service's name": func(statement, answer []byte) api.Sealed {
			return sign(stranger, s.identity.SPKI(), statement, answer)
		},
		"an answer to another report": func(statement, answer []byte) api.Sealed {
			return sign(s.identity, s.identity.SPKI(), append([]byte("another"), statement...), answer)
		},
		"of another version": func(statement, _ []byte) api.Sealed {
			return sign(s.identity, s.identity.SPKI(), statement, []byte(`{"version":3,"status":"committed"}`))
		},
		"not committed": func(statement, _ []byte) api.Sealed {
			return sign(s.identity, s.identity.SPKI(), statement, []byte(`{"version":2,"status":"open"}`))
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := unlocked(t, s, 1)
			proxy := between(t, s, api.PathRekeyed, func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
				body, err := io.ReadAll(r.Body)
				assert.NoError(t, err)
				var report api.RekeyedRequest
				assert.NoError(t, api.Decode(body, &report))
				text, err := api.Encode(api.RekeyedResponse{Signed: forge(report.Statement, []byte(`{"version":2,"status":"committed"}`))})
				assert.NoError(t, err)
				_, _ = w.Write(text)
			})
			s.order(t, g.volumes[0], false)
			a := g.startAgent([]string{proxy}, s.pin())
			a.await("KW-1405 untrusted_answer")
			a.end()
			assert.Equal(t, []uint32{1, 2}, versionsOn(t, g.volumes[0]))
			assert.Equal(t, kms.OrderOpen, s.orders(t)[0].Status)

			a = g.startAgent([]string{s.url}, s.pin())
			s.awaitNoOrders(t)
			a.end()
			s.requireRekeyed(t, g.volumes[0], 2)
		})
	}
}
