package awskms_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/clients/awskms"
	"keywright.dev/kms/root"
	"keywright.dev/kms/root/roottest"
	counterpart "keywright.dev/test/awskms"
)

// both returns what Wrap and Unwrap say in turn.
func both(t *testing.T, r *awskms.Root, ciphertext []byte) []error {
	t.Helper()
	_, wrapErr := r.Wrap(t.Context(), roottest.Key(1), []byte("c"))
	_, unwrapErr := r.Unwrap(t.Context(), ciphertext, []byte("c"))
	return []error{wrapErr, unwrapErr}
}

// only demands one class and none of the others.
func only(t *testing.T, err, class error) {
	t.Helper()
	for _, c := range []error{root.ErrDoesNotOpen, root.ErrRefused, root.ErrUnavailable} {
		if errors.Is(class, c) {
			require.ErrorIs(t, err, c)
		} else {
			require.NotErrorIs(t, err, c)
		}
	}
}

func TestKeyStates(t *testing.T) {
	for state, advice := range map[counterpart.State]string{
		counterpart.Disabled:        "enable-key",
		counterpart.PendingDeletion: "cancel-key-deletion",
		counterpart.PendingImport:   "imported material",
		counterpart.Unavailable:     "connect-custom-key-store",
	} {
		t.Run(string(state), func(t *testing.T) {
			a := start(t)
			r, arn := a.opened(t)
			ciphertext := wrapped(t, r, "c")
			a.SetState(arn, state)
			for _, err := range both(t, r, ciphertext) {
				only(t, err, root.ErrRefused)
				require.ErrorContains(t, err, advice)
				require.ErrorContains(t, err, arn)
			}
			a.SetState(arn, counterpart.Enabled)
			opens(t, r, ciphertext, "c")
		})
	}
}

func TestKeysThatAreNone(t *testing.T) {
	a := start(t)
	r, arn := a.opened(t)
	ciphertext := wrapped(t, r, "c")
	a.SetUsage(arn, "SIGN_VERIFY")
	for _, err := range both(t, r, ciphertext) {
		only(t, err, root.ErrRefused)
		require.ErrorContains(t, err, "SYMMETRIC_DEFAULT")
	}
	a.Delete(arn)
	for _, err := range both(t, r, ciphertext) {
		only(t, err, root.ErrRefused)
		require.ErrorContains(t, err, "does not come back")
	}
}

func TestErrorsByClass(t *testing.T) {
	a := start(t)
	r, _ := a.opened(t)
	ciphertext := wrapped(t, r, "c")
	for _, c := range []struct {
		status int
		kind   string
		class  error
	}{
		{400, "InvalidCiphertextException", root.ErrDoesNotOpen},
		{400, "IncorrectKeyException", root.ErrDoesNotOpen},
		{400, "AccessDeniedException", root.ErrRefused},
		{400, "DisabledException", root.ErrRefused},
		{400, "KMSInvalidStateException", root.ErrRefused},
		{400, "NotFoundException", root.ErrRefused},
		{400, "InvalidKeyUsageException", root.ErrRefused},
		{400, "InvalidGrantTokenException", root.ErrRefused},
		{400, "ValidationException", root.ErrRefused},
		{400, "UnrecognizedClientException", root.ErrRefused},
		{400, "ExpiredTokenException", root.ErrRefused},
		{400, "ThrottlingException", root.ErrUnavailable},
		{400, "LimitExceededException", root.ErrUnavailable},
		{500, "KMSInternalException", root.ErrUnavailable},
		{500, "KeyUnavailableException", root.ErrUnavailable},
		{503, "DependencyTimeoutException", root.ErrUnavailable},
		{503, "ServiceUnavailable", root.ErrUnavailable},
		{500, "SomethingThatAWSAddsOneDay", root.ErrUnavailable},
		{429, "SomethingThatAWSAddsOneDay", root.ErrUnavailable},
		{400, "SomethingThatAWSAddsOneDay", root.ErrRefused},
	} {
		t.Run(c.kind, func(t *testing.T) {
			a.Refuse(1000, c.status, c.kind, "because")
			for _, err := range both(t, r, ciphertext) {
				only(t, err, c.class)
				require.ErrorContains(t, err, c.kind)
				require.ErrorContains(t, err, "because")
			}
			a.Refuse(0, 0, "", "")
		})
	}
	opens(t, r, ciphertext, "c")
}

func TestTriesAgainWhereItMay(t *testing.T) {
	a := start(t)
	r, _ := a.opened(t)
	for _, kind := range []string{"KMSInternalException", "KeyUnavailableException", "DependencyTimeoutException"} {
		before := a.Calls("Encrypt")
		a.Refuse(2, http.StatusInternalServerError, kind, "")
		wrapped(t, r, "c")
		assert.Equal(t, before+3, a.Calls("Encrypt"))
	}
}

// Where everything fails, the token bucket runs out and calls are sent but once.
func TestTokenBucketEndsRetries(t *testing.T) {
	a := start(t)
	r, _ := a.opened(t)
	a.Throttle(1<<30, 0)
	for range 100 {
		_, err := r.Wrap(t.Context(), roottest.Key(1), nil)
		only(t, err, root.ErrUnavailable)
	}
	before := a.Calls("Encrypt")
	assert.Less(t, before, 4*100)
	_, err := r.Wrap(t.Context(), roottest.Key(1), nil)
	only(t, err, root.ErrUnavailable)
	assert.Equal(t, before+1, a.Calls("Encrypt"))
	a.Throttle(0, 0)
	wrapped(t, r, "c")
}

// Who is asked to wait does not ask again meanwhile.
func TestRetryAfter(t *testing.T) {
	a := start(t)
	r, _ := a.opened(t)
	a.Throttle(1<<30, time.Minute)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err := r.Wrap(ctx, roottest.Key(1), nil)
	only(t, err, root.ErrUnavailable)
	assert.Equal(t, 1, a.Calls("Encrypt"))
}

func TestLies(t *testing.T) {
	for name, c := range map[string]struct {
		lie   func(account) counterpart.Lie
		class error
	}{
		"another key": {func(a account) counterpart.Lie {
			other := a.AddKey(t, region, false)
			return counterpart.Saying(func(answer *counterpart.Answer) { answer.KeyID = other })
		}, root.ErrRefused},
		"no key": {func(account) counterpart.Lie {
			return counterpart.Saying(func(answer *counterpart.Answer) { answer.KeyID = "" })
		}, root.ErrRefused},
		"another length": {func(account) counterpart.Lie {
			return counterpart.Saying(func(answer *counterpart.Answer) {
				answer.Plaintext = bytes.Repeat([]byte{1}, root.KeySize+1)
				answer.CiphertextBlob = nil
			})
		}, nil},
		"much":      {func(account) counterpart.Lie { return counterpart.Oversize }, root.ErrUnavailable},
		"half":      {func(account) counterpart.Lie { return counterpart.Truncated }, root.ErrUnavailable},
		"something": {func(account) counterpart.Lie { return counterpart.Garbage }, root.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			a := start(t)
			r, _ := a.opened(t)
			ciphertext := wrapped(t, r, "c")
			a.SetLie(c.lie(a))
			classes := []error{c.class, c.class}
			if c.class == nil {
				classes = []error{root.ErrUnavailable, root.ErrDoesNotOpen}
			}
			for i, err := range both(t, r, ciphertext) {
				only(t, err, classes[i])
				assert.Less(t, len(err.Error()), 1500)
			}
			a.SetLie(nil)
			opens(t, r, ciphertext, "c")
		})
	}
}

// A key does not follow whoever answers to another address.
func TestFollowsNoRedirect(t *testing.T) {
	a := start(t)
	other := counterpart.Start(t)
	r, _ := a.opened(t)
	for _, status := range []int{http.StatusFound, http.StatusTemporaryRedirect} {
		a.SetLie(counterpart.RedirectTo(other.URL, status))
		_, err := r.Wrap(t.Context(), roottest.Key(1), nil)
		only(t, err, root.ErrRefused)
		assert.Zero(t, other.Calls("Encrypt"))
	}
}

func TestNoErrorRepeatsAKey(t *testing.T) {
	a := start(t)
	r, _ := a.opened(t)
	a.Refuse(1, http.StatusBadRequest, "ValidationException", "I was asked \x1b[31m{request}")
	_, err := r.Wrap(t.Context(), roottest.Key(1), []byte("c"))
	require.ErrorContains(t, err, "I was asked")
	assert.NotContains(t, err.Error(), base64.StdEncoding.EncodeToString(roottest.Key(1).Expose()))
	assert.NotContains(t, err.Error(), "\x1b")
}
