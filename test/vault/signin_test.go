package vault

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	lease    = 3600 // of a token, in seconds
	secretID = "3b1f8a52-8c4c-4ad5-a2f7-6e0d3b0f4a77"
	role     = "5f0c6b9e-1d6a-4f55-9d27-92b7f6a1c3de"
	jwt      = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJrZXl3cmlnaHQifQ.c2lnbmF0dXJl"
)

// signIn are the credentials of the ways to sign in, in files.
type signIn struct {
	tb         testing.TB
	folder     string
	clientCert []byte // in DER
}

func newSignIn(tb testing.TB) signIn {
	s := signIn{tb: tb, folder: tb.TempDir()}
	for name, text := range map[string]string{"role-id": role, "secret-id": secretID + "\n", "jwt": jwt} {
		s.write(name, text)
	}
	s.clientCert = s.makeClient()
	return s
}

func (s signIn) path(name string) string { return filepath.Join(s.folder, name) }

func (s signIn) write(name, text string) {
	require.NoError(s.tb, os.WriteFile(s.path(name), []byte(text), 0o600))
}

func (s signIn) makeClient() []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(s.tb, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(s.tb, err)
	writeCertificate(s.tb, s.path("client.pem"), der)
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(s.tb, err)
	s.write("client.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})))
	return der
}

func (s signIn) serverTLS() *tls.Config { return &tls.Config{ClientAuth: tls.RequestClientCert} }

func writeCertificate(tb testing.TB, path string, der []byte) {
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	require.NoError(tb, os.WriteFile(path, text, 0o600))
}

// newToken is one that ends after the given time; never where that is 0.
func (f *front) newToken(d time.Duration) string {
	token := "hvs." + rand.Text() + rand.Text()
	f.set(func() {
		f.tokens[token] = time.Time{}
		if d > 0 {
			f.tokens[token] = time.Now().Add(d)
		}
	})
	return token
}

func (f *front) serveAuth(w http.ResponseWriter, r *http.Request, path string, data map[string]any) {
	switch path {
	case "auth/token/lookup-self", "auth/token/renew-self":
		f.serveToken(w, r.Header.Get("X-Vault-Token"), strings.TrimPrefix(path, "auth/token/"))
	case "auth/approle/login":
		f.login(w, data["role_id"] == role && data["secret_id"] == secretID, "invalid role or secret ID")
	case "auth/kubernetes/login":
		f.login(w, data["role"] == "keywright" && data["jwt"] == jwt, "invalid role name")
	case "auth/team/cert/login":
		peer := r.TLS.PeerCertificates
		f.login(w, len(peer) == 1 && string(peer[0].Raw) == string(f.signIn.clientCert), "invalid certificate or no client certificate supplied")
	default:
		fail(w, http.StatusForbidden, "permission denied")
	}
}

func (f *front) login(w http.ResponseWriter, right bool, wrong string) {
	if !right {
		fail(w, http.StatusBadRequest, wrong)
		return
	}
	f.answerAuth(w, f.newToken(lease*time.Second))
}

func (f *front) answerAuth(w http.ResponseWriter, token string) {
	answer(w, http.StatusOK, map[string]any{"auth": map[string]any{
		"client_token": token, "lease_duration": lease, "renewable": true, "policies": []string{"keywright"},
	}})
}

func (f *front) serveToken(w http.ResponseWriter, token, what string) {
	switch {
	case !f.knows(token):
		fail(w, http.StatusForbidden, "permission denied", "invalid token")
	case what == "lookup-self":
		answer(w, http.StatusOK, map[string]any{"data": map[string]any{"ttl": lease, "renewable": true}})
	default:
		f.answerAuth(w, token)
	}
}

// revoke ends all tokens that there are.
func (f *front) revoke() {
	f.set(func() { clear(f.tokens) })
}

// shippedPolicy is what docs/roots/vault.md tells people to give us, for our
// mount and every key.
func shippedPolicy(tb testing.TB) policy {
	page, err := os.ReadFile("../../docs/roots/vault.md")
	require.NoError(tb, err)
	rule := regexp.MustCompile(`path "transit/(\w+)/keywright" \{\s+capabilities = \[([^\]]*)\]\s+\}`)
	granted := policy{}
	for _, match := range rule.FindAllStringSubmatch(string(page), -1) {
		for _, key := range []string{"keywright", "other", "gone"} {
			for _, capability := range strings.Split(match[2], ", ") {
				unquoted, err := strconv.Unquote(capability)
				require.NoError(tb, err)
				path := mount + "/" + match[1] + "/" + key
				granted[path] = append(granted[path], unquoted)
			}
		}
	}
	require.Len(tb, granted, 9)
	return granted
}
