package awskms_test

import (
	"net/url"
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

const region = "eu-central-1"

// account is a KMS with a user whose credentials the environment has.
type account struct {
	*counterpart.Server
	user counterpart.Credentials
}

func start(t testing.TB) account {
	t.Helper()
	s := counterpart.Start(t)
	a := account{s, s.AddUser(t)}
	isolate(t)
	a.authenticate(t, a.user)
	return a
}

// isolate keeps the default chain away from what this machine has configured.
func isolate(t testing.TB) {
	t.Helper()
	for _, name := range []string{
		"AWS_PROFILE", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_KMS", "AWS_CA_BUNDLE",
		"AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_MAX_ATTEMPTS", "AWS_REGION",
		"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT",
	} {
		t.Setenv(name, "")
		require.NoError(t, os.Unsetenv(name))
	}
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "absent"))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(t.TempDir(), "absent"))
}

func (a account) authenticate(t testing.TB, c counterpart.Credentials) {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", c.AccessKeyID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", c.SecretAccessKey)
	t.Setenv("AWS_SESSION_TOKEN", c.SessionToken)
}

func (a account) uri(arn, more string) string {
	return "awskms:///" + arn + "?endpoint=" + url.QueryEscape(a.URL) + more
}

func (a account) open(t testing.TB, arn, more string) *awskms.Root {
	t.Helper()
	r, err := awskms.OpenHasty(t.Context(), a.uri(arn, more))
	require.NoError(t, err)
	return r
}

// opened returns a root on a new key.
func (a account) opened(t testing.TB) (r *awskms.Root, arn string) {
	t.Helper()
	arn = a.AddKey(t, region, false)
	return a.open(t, arn, ""), arn
}

func wrapped(t testing.TB, r root.Root, context string) []byte {
	t.Helper()
	w, err := r.Wrap(t.Context(), roottest.Key(1), []byte(context))
	require.NoError(t, err)
	return w.Ciphertext
}

func opens(t testing.TB, r root.Root, ciphertext []byte, context string) {
	t.Helper()
	key, err := r.Unwrap(t.Context(), ciphertext, []byte(context))
	require.NoError(t, err)
	assert.True(t, roottest.Key(1).Equal(key))
}

func TestConformance(t *testing.T) {
	for name, multiRegion := range map[string]bool{"SingleRegion": false, "MultiRegion": true} {
		t.Run(name, func(t *testing.T) {
			roottest.Run(t, func(t *testing.T) roottest.Subject { return subject(t, multiRegion) })
		})
	}
}

// subject has no Rotate: KMS does not show that it rotated. See
// TestUnwrapsWhatOlderMaterialWrapped.
func subject(t *testing.T, multiRegion bool) roottest.Subject {
	a := start(t)
	arn := a.AddKey(t, region, multiRegion)
	return roottest.Subject{
		Root:     a.open(t, arn, ""),
		Again:    func(t testing.TB) root.Root { return a.open(t, arn, "") },
		Other:    func(t testing.TB) root.Root { return a.open(t, a.AddKey(t, region, multiRegion), "") },
		Down:     func(testing.TB) { a.SetDown(true) },
		Up:       func(testing.TB) { a.SetDown(false) },
		Slow:     func(_ testing.TB, d time.Duration) { a.SetSlow(d) },
		Throttle: func(_ testing.TB, n int) { a.Throttle(n, 0) },
		Forbid:   func(testing.TB) { a.Allow(a.user, counterpart.Nothing()) },
	}
}

func TestUnwrapsWhatOlderMaterialWrapped(t *testing.T) {
	a := start(t)
	r, arn := a.opened(t)
	before := wrapped(t, r, "c")
	a.Rotate(t, arn)
	opens(t, r, before, "c")
	opens(t, r, wrapped(t, r, "c"), "c")
}

func TestWrapsKeysOnly(t *testing.T) {
	a := start(t)
	r, _ := a.opened(t)
	key := roottest.Key(1)
	key.Wipe()
	_, err := r.Wrap(t.Context(), key, nil)
	require.ErrorContains(t, err, "0 bytes")
	assert.Zero(t, a.Calls("Encrypt"))
}

// A multi-Region key is one root: what is wrapped in one region unwraps in another.
func TestMultiRegionKeyIsOneRoot(t *testing.T) {
	a := start(t)
	arn := a.AddKey(t, region, true)
	here := a.open(t, arn, "")
	there := a.open(t, arn, "&region=us-west-2")
	ciphertext := wrapped(t, here, "c")

	_, err := there.Unwrap(t.Context(), ciphertext, []byte("c"))
	require.ErrorIs(t, err, root.ErrRefused, "there is no replica yet")
	replica := a.Replicate(arn, "us-west-2")
	opens(t, there, ciphertext, "c")
	opens(t, a.open(t, replica, ""), ciphertext, "c")
	opens(t, here, wrapped(t, there, "c"), "c")

	assert.Equal(t, here.URI(), there.URI())
	assert.Equal(t, here.URI(), a.open(t, replica, "").URI())
	assert.NotContains(t, here.URI(), region)

	a.SetState(arn, counterpart.Disabled)
	_, err = here.Unwrap(t.Context(), ciphertext, []byte("c"))
	require.ErrorIs(t, err, root.ErrRefused)
	opens(t, there, ciphertext, "c")

	a.SetLie(counterpart.Saying(func(answer *counterpart.Answer) { answer.KeyID = arn }))
	_, err = there.Unwrap(t.Context(), ciphertext, []byte("c"))
	require.ErrorIs(t, err, root.ErrRefused, "the answer is another region's")
}

func TestOpenNeedsNoAnswer(t *testing.T) {
	a := start(t)
	arn := a.AddKey(t, region, false)
	uri := "awskms:///" + arn + "?endpoint=http://127.0.0.1:1"
	r, err := awskms.OpenHasty(t.Context(), uri)
	require.NoError(t, err)
	_, err = r.Wrap(t.Context(), roottest.Key(1), nil)
	require.ErrorIs(t, err, root.ErrUnavailable)
	r, err = awskms.Open(t.Context(), "awskms:///"+arn)
	require.NoError(t, err)
	assert.Equal(t, "awskms:"+arn, r.URI())
}
