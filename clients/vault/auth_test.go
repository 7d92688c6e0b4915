package vault_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/clients/vault"
	"keywright.dev/kms/root"
)

func TestLogins(t *testing.T) {
	for query, want := range map[string]asked{
		byAppRole:                        {path: login, body: `{"role_id":"5f0c6b9e","secret_id":"` + secretID + `"}`},
		byAppRole + "&auth-path=team/ar": {path: "/v1/auth/team/ar/login", body: `{"role_id":"5f0c6b9e","secret_id":"` + secretID + `"}`},
		"auth=kubernetes&role=keywright&jwt-file=jwt": {path: "/v1/auth/kubernetes/login", body: `{"role":"keywright","jwt":"eyJ.a.b"}`},
	} {
		t.Run(query, func(t *testing.T) {
			s := started(t)
			s.write(t, "jwt", "eyJ.a.b")
			s.on(want.path, s.answers[login])
			require.NoError(t, unwrap(t, s.open(t, query)))
			assert.Equal(t, want.body, s.requests(want.path)[0].body)
			assert.Equal(t, token, s.requests(decrypt)[0].header.Get("X-Vault-Token"))
		})
	}
}

func TestSignsInBeforeItsTokenEnds(t *testing.T) {
	s := started(t)
	r := s.open(t, byAppRole)
	for _, step := range []struct {
		after  time.Duration
		logins int
	}{{0, 1}, {2399 * time.Second, 1}, {2 * time.Second, 2}, {2398 * time.Second, 2}, {time.Hour, 3}} {
		s.after(step.after)
		require.NoError(t, unwrap(t, r))
		assert.Len(t, s.requests(login), step.logins)
	}
}

// A login that fails in the last third of a token's time costs no call: the token
// is good for that long.
func TestTokenServesWhileALoginFails(t *testing.T) {
	for _, status := range []int{400, 403, 503} {
		s := started(t)
		r := s.open(t, byAppRole)
		require.NoError(t, unwrap(t, r))
		s.on(login, says(status, `{"errors":["invalid role or secret ID"]}`))
		s.after(2401 * time.Second)
		require.NoError(t, unwrap(t, r))
		assert.Len(t, s.requests(login), 2)

		s.on(decrypt, says(403, `{"errors":["permission denied"]}`))
		err := unwrap(t, r)
		require.Error(t, err)
		assert.ErrorContains(t, err, "signing in at auth/approle", "a token that Vault rejects serves no more")
		s.after(1199 * time.Second)
		before := len(s.requests(decrypt))
		require.ErrorContains(t, unwrap(t, r), "signing in at auth/approle")
		assert.Len(t, s.requests(decrypt), before, "nor one that has ended")
	}
}

func TestSeveralAtOnceSignInOnce(t *testing.T) {
	for _, query := range []string{byAppRole, byToken} {
		s := started(t)
		s.on(lookUp, says(200, `{"data":{"ttl":3600,"renewable":true}}`))
		s.on(renew, s.answers[login])
		r := s.open(t, query)
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() { assert.NoError(t, unwrap(t, r)) })
		}
		group.Wait()
		assert.LessOrEqual(t, len(s.requests(login)), 1)
		assert.Len(t, s.requests(decrypt), 8)
	}
}

func TestLoginsGiveATokenOrAnError(t *testing.T) {
	for body, why := range map[string]string{
		`{}`: "no token", `{"auth":{"client_token":""}}`: "no token", `{"auth":{"client_token":"a\nb"}}`: "no token", `[`: "not in JSON",
		`{"auth":{"client_token":"t","lease_duration":-1}}`: "no token",
	} {
		s := started(t)
		s.on(login, says(200, body))
		err := unwrap(t, s.open(t, byAppRole))
		require.ErrorIs(t, err, root.ErrRefused)
		assert.ErrorContains(t, err, "signing in at auth/approle")
		assert.ErrorContains(t, err, why)
		assert.Empty(t, s.requests(decrypt))
	}
}

// A login that is refused is not repeated: Vault locks roles out.
func TestRefusedLoginIsAskedOnce(t *testing.T) {
	for _, status := range []int{400, 403} {
		s := started(t)
		s.on(login, says(status, `{"errors":["invalid role or secret ID"]}`))
		err := unwrap(t, s.open(t, byAppRole))
		require.ErrorIs(t, err, root.ErrRefused)
		assert.ErrorContains(t, err, "invalid role or secret ID")
		assert.Len(t, s.requests(login), 1)
	}
}

func TestForbiddenSignsInOnceMore(t *testing.T) {
	s := started(t)
	s.on(decrypt, says(403, `{"errors":["permission denied"]}`))
	r := s.open(t, byAppRole)
	for n := range 2 {
		err := unwrap(t, r)
		require.ErrorIs(t, err, root.ErrRefused)
		assert.ErrorContains(t, err, "no policy of it allows update on transit/decrypt/k")
		assert.Len(t, s.requests(login), 2+n)
	}
	assert.Empty(t, s.waited)
}

func TestTokenIsRenewed(t *testing.T) {
	s := started(t)
	renewed := make(chan http.Header, 10)
	s.on(lookUp, says(200, `{"data":{"ttl":3600,"renewable":true}}`))
	s.on(renew, func(w http.ResponseWriter, r *http.Request) {
		renewed <- r.Header
		says(200, `{"auth":{"client_token":"`+token+`","lease_duration":3600,"renewable":true}}`)(w, r)
	})
	r := s.open(t, byToken)
	require.NoError(t, unwrap(t, r))
	assert.Equal(t, token, (<-renewed).Get("X-Vault-Token"))
	require.NoError(t, unwrap(t, r))
	assert.Len(t, s.requests(lookUp), 1)

	s.write(t, "token", "hvs.another")
	require.NoError(t, unwrap(t, r))
	assert.Equal(t, "hvs.another", (<-renewed).Get("X-Vault-Token"))
	require.NoError(t, r.Close())
}

// An outage near the end of a token's time ends a renewal while the token lives.
func TestRenewalThatEndedBeginsAnew(t *testing.T) {
	s := started(t)
	s.on(lookUp, says(200, `{"data":{"ttl":3600,"renewable":true}}`))
	s.on(renew, says(200, `{"auth":{"client_token":"`+token+`","lease_duration":0,"renewable":true}}`))
	r := s.open(t, byToken)
	for len(s.requests(renew)) < 2 {
		require.NoError(t, unwrap(t, r))
	}
}

func TestTokenFiles(t *testing.T) {
	s := started(t)
	r := s.open(t, byToken)
	path := filepath.Join(s.folder, "token")
	require.NoError(t, os.Remove(path))
	err := unwrap(t, r)
	require.ErrorIs(t, err, root.ErrUnavailable, "an agent may be about to write it")
	assert.ErrorContains(t, err, "reading the token-file")

	s.write(t, "token", token)
	require.NoError(t, unwrap(t, r))
	require.NoError(t, os.Chmod(path, 0o604))
	err = unwrap(t, r)
	require.ErrorIs(t, err, root.ErrRefused)
	assert.ErrorContains(t, err, "run chmod o-rwx")

	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Mkdir(path, 0o700))
	assert.ErrorContains(t, unwrap(t, r), "is not a regular file")
	require.NoError(t, os.Remove(path))
	for _, text := range []string{"", "\n", "two words", "a\nb", "é", strings.Repeat("a", 1<<20)} {
		s.write(t, "token", text)
		require.ErrorIs(t, unwrap(t, r), root.ErrRefused)
	}
	assert.Len(t, s.requests(decrypt), 1)
}

func TestOpenRefuses(t *testing.T) {
	folder := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(folder, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	text := file("text", "no PEM")
	for query, why := range map[string]string{
		byToken + "&ca-file=" + folder + "/absent":                        "reading the ca-file",
		byToken + "&ca-file=" + text:                                      "no certificate in PEM",
		byToken + "&ca-file=ca.pem":                                       "the service manager passed no credentials",
		byToken + "&cert-file=" + text + "&key-file=" + text:              "no certificate and its key",
		"auth=cert&cert-file=" + text + "&key-file=" + folder + "/absent": "reading the key-file",
		byToken + "&unknown=1":                                            "a right one looks like",
	} {
		_, err := vault.Open(t.Context(), "vault://vault.example/transit/k?"+query, vault.Options{})
		require.ErrorContains(t, err, why)
	}
}
