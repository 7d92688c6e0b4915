package vault_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/root"
	"keywright.dev/kms/root/roottest"
	"keywright.dev/kms/secret"
)

func TestWhatIsSent(t *testing.T) {
	s := started(t)
	r := s.open(t, byToken+"&namespace=ns/prod")
	w, err := r.Wrap(t.Context(), roottest.Key(1), []byte("keyring/a@1"))
	require.NoError(t, err)
	assert.Equal(t, root.Wrapped{Ciphertext: []byte(ciphertext(3)), Version: "3"}, w)
	sent := s.requests(encrypt)[0]
	assert.JSONEq(t, `{"plaintext":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=","associated_data":"a2V5cmluZy9hQDE="}`, sent.body)
	assert.Equal(t, token, sent.header.Get("X-Vault-Token"))
	assert.Equal(t, "ns/prod", sent.header.Get("X-Vault-Namespace"))
	assert.Equal(t, "true", sent.header.Get("X-Vault-Request"))

	require.NoError(t, unwrap(t, r))
	assert.Equal(t, `{"ciphertext":"`+ciphertext(2)+`","associated_data":"Yw=="}`, s.requests(decrypt)[0].body)
	version, err := r.Version(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "3", version)
}

func TestEnvironmentOfVaultsToolsDoesNotCount(t *testing.T) {
	for name, value := range map[string]string{
		"VAULT_ADDR": "http://192.0.2.1:1", "VAULT_AGENT_ADDR": "http://192.0.2.1:1", "VAULT_TOKEN": "t", "VAULT_NAMESPACE": "n",
		"VAULT_WRAP_TTL": "60", "VAULT_HEADERS": `{"X-Other":"1"}`, "HTTP_PROXY": "http://192.0.2.1:1",
	} {
		t.Setenv(name, value)
	}
	s := started(t)
	require.NoError(t, unwrap(t, s.open(t, byAppRole)))
	sent := s.requests(login)[0].header
	for _, name := range []string{"X-Vault-Token", "X-Vault-Namespace", "X-Vault-Wrap-Ttl", "X-Other"} {
		assert.Empty(t, sent.Get(name), name)
	}
	assert.Equal(t, token, s.requests(decrypt)[0].header.Get("X-Vault-Token"))
}

func TestErrorClasses(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		class  error
		text   string
	}{
		{400, `{"errors":["cipher: message authentication failed"]}`, root.ErrDoesNotOpen, "message authentication failed"},
		{400, `{"errors":["invalid ciphertext: version is too new"]}`, root.ErrDoesNotOpen, "too new"},
		{400, `{"errors":["something new"]}`, root.ErrRefused, "Vault answers 400 Bad Request: something new"},
		{400, `<html>message authentication failed</html>`, root.ErrRefused, "not in Vault's form"},
		{403, `{"errors":["permission denied"]}`, root.ErrRefused, "permission denied"},
		{404, `{"errors":[]}`, root.ErrRefused, "there is no such key"},
		{405, `{"errors":["unsupported operation"]}`, root.ErrRefused, "unsupported operation"},
		{412, `{"errors":["required index state not present"]}`, root.ErrUnavailable, "412"},
		{429, `{"errors":["rate limit quota exceeded"]}`, root.ErrUnavailable, "rate limit quota exceeded"},
		{500, `{"errors":["internal error"]}`, root.ErrUnavailable, "internal error"},
		{502, `<html>`, root.ErrUnavailable, "502 Bad Gateway, but not in Vault's form"},
		{503, `{"errors":["Vault is sealed"]}`, root.ErrUnavailable, "Vault is sealed"},
		{200, `{`, root.ErrRefused, "not in JSON"},
		{200, `{"data":{"plaintext":"AQ=="}}`, root.ErrRefused, "1 bytes, not 32"},
		{200, `{"data":{"plaintext":"?"}}`, root.ErrRefused, "not in base64"},
		{200, `{}`, root.ErrRefused, "0 bytes, not 32"},
		{204, ``, root.ErrRefused, "its status is 204"},
		{302, ``, root.ErrRefused, "its status is 302"},
		{200, strings.Repeat(" ", 1<<20), root.ErrUnavailable, "too large"},
	} {
		t.Run(fmt.Sprint(c.status, c.body[:min(20, len(c.body))]), func(t *testing.T) {
			s := started(t)
			s.on(decrypt, says(c.status, c.body))
			err := unwrap(t, s.open(t, byToken))
			require.ErrorIs(t, err, c.class)
			for _, class := range []error{root.ErrUnavailable, root.ErrRefused, root.ErrDoesNotOpen} {
				assert.Equal(t, errors.Is(c.class, class), errors.Is(err, class), "%v: %v", class, err)
			}
			assert.ErrorContains(t, err, c.text)
			assert.ErrorContains(t, err, "unwrapping under vault:127.0.0.1:")
		})
	}
}

func TestWrapRefusesAnswersOfAnotherForm(t *testing.T) {
	for _, body := range []string{`{}`, `[`, `{"data":{"ciphertext":"vault:v0:AAAA"}}`, `{"data":{"ciphertext":"vault:v1:AA\nAA"}}`} {
		s := started(t)
		s.on(encrypt, says(200, body))
		require.ErrorIs(t, wrap(t, s.open(t, byToken)), root.ErrRefused, body)
	}
	for _, body := range []string{`{}`, `[`, `{"data":{"type":"aes256-gcm96"}}`, `{"data":{"type":"aes256-gcm96","latest_version":"3"}}`} {
		s := started(t)
		s.on(keys, says(200, body))
		require.ErrorIs(t, wrap(t, s.open(t, byToken)), root.ErrRefused, body)
		assert.Empty(t, s.requests(encrypt))
	}
	s := started(t)
	_, err := s.open(t, byToken).Wrap(t.Context(), secret.Copy([]byte("short")), nil)
	require.ErrorContains(t, err, "the key has 5 bytes, not 32")
}

func TestErrorsRepeatNoSecret(t *testing.T) {
	key := base64.StdEncoding.EncodeToString(roottest.Key(1).Expose())
	for _, status := range []int{400, 403, 404, 500, 502} {
		s := started(t)
		for _, path := range []string{encrypt, login} {
			s.on(path, echo(status))
			err := wrap(t, s.open(t, byAppRole))
			require.Error(t, err)
			assert.ErrorContains(t, err, "text")
			for _, hidden := range []string{key, token, secretID} {
				assert.NotContains(t, fmt.Sprintf("%v %+v %#v", err, err, err), hidden)
			}
		}
	}
}

func TestTriesAgainWithGrowingPauses(t *testing.T) {
	s := started(t)
	s.on(decrypt, says(503, `{"errors":["Vault is sealed"]}`))
	require.ErrorIs(t, unwrap(t, s.open(t, byToken)), root.ErrUnavailable)
	assert.Len(t, s.requests(decrypt), 5)
	const ms = time.Millisecond
	assert.Equal(t, []time.Duration{100 * ms, 200 * ms, 400 * ms, 800 * ms}, s.waited)
}

func TestWaitsAsLongAsVaultAsks(t *testing.T) {
	date := time.Unix(1_800_000_000, 0).Add(7 * time.Second).UTC().Format(http.TimeFormat)
	for header, want := range map[string][]time.Duration{
		"3": {3 * time.Second}, date: {7 * time.Second}, "soon": {100 * time.Millisecond}, "3600": nil,
	} {
		t.Run(header, func(t *testing.T) {
			s := started(t)
			answered := s.answers[decrypt]
			s.on(decrypt, func(w http.ResponseWriter, r *http.Request) {
				s.on(decrypt, answered)
				w.Header().Set("Retry-After", header)
				says(429, `{"errors":["quota"]}`)(w, r)
			})
			err := unwrap(t, s.open(t, byToken))
			assert.Equal(t, want, s.waited)
			if want == nil {
				require.ErrorIs(t, err, root.ErrUnavailable)
				assert.ErrorContains(t, err, "quota; it asks us to wait for 1h0m0s")
			} else {
				require.NoError(t, err)
			}
		})
	}
}

func TestNobodyThere(t *testing.T) {
	s := started(t)
	r := s.open(t, byAppRole)
	s.Close()
	err := unwrap(t, r)
	require.ErrorIs(t, err, root.ErrUnavailable)
	assert.ErrorContains(t, err, "connection refused")
	assert.Len(t, s.waited, 4)
}

func TestEndedContextIsNotTriedAgain(t *testing.T) {
	s := started(t)
	ctx, cancel := context.WithCancel(t.Context())
	s.on(decrypt, func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	_, err := s.open(t, byToken).Unwrap(ctx, []byte(ciphertext(1)), nil)
	require.ErrorIs(t, err, root.ErrUnavailable)
	require.ErrorIs(t, err, context.Canceled)
	assert.Empty(t, s.waited)
}

func TestRedirectOfAStandby(t *testing.T) {
	active := started(t)
	to := func(status int, base string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, base+r.URL.Path, status) }
	}
	standby := started(t)
	standby.on(encrypt, to(307, active.URL))
	require.NoError(t, wrap(t, standby.open(t, byToken)))
	sent := active.requests(encrypt)[0]
	assert.Contains(t, sent.body, `"plaintext":"AQEB`)
	assert.Equal(t, token, sent.header.Get("X-Vault-Token"))

	standby.on(encrypt, to(307, "https://192.0.2.1"))
	require.ErrorIs(t, wrap(t, standby.open(t, byToken)), root.ErrRefused)
	standby.on(encrypt, to(302, active.URL))
	require.ErrorIs(t, wrap(t, standby.open(t, byToken)), root.ErrRefused)
	active.on(encrypt, to(307, standby.URL))
	standby.on(encrypt, to(307, active.URL))
	require.ErrorIs(t, wrap(t, standby.open(t, byToken)), root.ErrRefused)
	assert.Len(t, active.requests(encrypt), 2)
}
