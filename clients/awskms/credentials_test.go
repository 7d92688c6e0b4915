package awskms_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/clients/awskms"
	"keywright.dev/kms/root"
	"keywright.dev/kms/root/roottest"
	counterpart "keywright.dev/test/awskms"
)

// profiles writes a credentials file with one section.
func profiles(t *testing.T, name string, c counterpart.Credentials) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "credentials")
	text := fmt.Sprintf("[%s]\naws_access_key_id = %s\naws_secret_access_key = %s\naws_session_token = %s\n",
		name, c.AccessKeyID, c.SecretAccessKey, c.SessionToken)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", path)
}

func TestProfileGoesBeforeTheEnvironment(t *testing.T) {
	a := start(t)
	arn := a.AddKey(t, region, false)
	profiles(t, "keywright", a.AddUser(t))
	a.Allow(a.user, counterpart.Nothing())
	wrapped(t, a.open(t, arn, "&profile=keywright"), "c")
	_, err := a.open(t, arn, "").Wrap(t.Context(), roottest.Key(1), nil)
	require.ErrorIs(t, err, root.ErrRefused)

	_, err = awskms.Open(t.Context(), a.uri(arn, "&profile=absent"))
	require.ErrorContains(t, err, "absent")
}

func TestDefaultChainReadsTheCredentialsFile(t *testing.T) {
	a := start(t)
	arn := a.AddKey(t, region, false)
	isolate(t)
	profiles(t, "default", a.user)
	wrapped(t, a.open(t, arn, ""), "c")
}

// The environment may name an endpoint for other programs: keys do not go there.
func TestEndpointIsThatOfTheURI(t *testing.T) {
	a := start(t)
	other := counterpart.Start(t)
	t.Setenv("AWS_ENDPOINT_URL", other.URL)
	t.Setenv("AWS_ENDPOINT_URL_KMS", other.URL)
	r, _ := a.opened(t)
	wrapped(t, r, "c")
	assert.Zero(t, other.Calls("Encrypt"))
}

func TestWithoutCredentials(t *testing.T) {
	a := start(t)
	arn := a.AddKey(t, region, false)
	isolate(t)
	_, err := a.open(t, arn, "").Wrap(t.Context(), roottest.Key(1), nil)
	require.ErrorIs(t, err, root.ErrUnavailable, "they may come: from a file, from the instance's role")
	require.ErrorContains(t, err, "credentials")
	assert.Zero(t, a.Calls("Encrypt"))
}

func TestCredentialsThatAreNotAccepted(t *testing.T) {
	for name, spoil := range map[string]func(account, *counterpart.Credentials){
		"unknown key":   func(_ account, c *counterpart.Credentials) { c.AccessKeyID = "AKIA0000000000000000" },
		"wrong secret":  func(_ account, c *counterpart.Credentials) { c.SecretAccessKey += "0" },
		"wrong token":   func(_ account, c *counterpart.Credentials) { c.SessionToken += "0" },
		"ended session": func(a account, c *counterpart.Credentials) { a.Expire(*c) },
	} {
		t.Run(name, func(t *testing.T) {
			a := start(t)
			spoil(a, &a.user)
			a.authenticate(t, a.user)
			r, _ := a.opened(t)
			_, err := r.Wrap(t.Context(), roottest.Key(1), nil)
			require.ErrorIs(t, err, root.ErrRefused)
			require.ErrorContains(t, err, "credentials")
			assert.NotContains(t, err.Error(), a.user.SecretAccessKey)
			assert.NotContains(t, err.Error(), a.user.SessionToken)
			assert.Equal(t, 1, a.Calls("Encrypt"), "what is refused is not tried again")
		})
	}
}

// The transport that bounds answers has the certificates that the SDK was told of.
func TestTrustsTheConfiguredCertificates(t *testing.T) {
	isolate(t)
	server, certificate := counterpart.StartTLS(t)
	a := account{server, server.AddUser(t)}
	a.authenticate(t, a.user)
	r, arn := a.opened(t)
	_, err := r.Wrap(t.Context(), roottest.Key(1), nil)
	require.ErrorIs(t, err, root.ErrRefused)
	require.ErrorContains(t, err, "certificate")
	assert.Zero(t, a.Calls("Encrypt"))

	bundle := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(bundle, certificate, 0o600))
	t.Setenv("AWS_CA_BUNDLE", bundle)
	wrapped(t, a.open(t, arn, ""), "c")
}

// A clock that is wrong costs one call more, not the root.
func TestSurvivesAClockThatIsWrong(t *testing.T) {
	for _, ahead := range []time.Duration{20 * time.Minute, -20 * time.Minute} {
		a := start(t)
		a.SetClock(ahead)
		r, _ := a.opened(t)
		opens(t, r, wrapped(t, r, "c"), "c")
	}
}

func TestSecretsStayOutOfWhatIsPrinted(t *testing.T) {
	a := start(t)
	r, _ := a.opened(t)
	wrapped(t, r, "c")
	shown := fmt.Sprintf("%v %+v %#v", r, *r, *r)
	for _, s := range []string{a.user.SecretAccessKey, base64.StdEncoding.EncodeToString(roottest.Key(1).Expose())} {
		assert.NotContains(t, shown, s)
	}
}
