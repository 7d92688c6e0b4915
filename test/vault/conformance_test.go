package vault

import (
	"context"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"keywright.dev/clients/vault"
	"keywright.dev/kms/root"
	"keywright.dev/kms/root/roottest"
)

func options() vault.Options {
	return vault.Options{Clock: time.Now, Wait: wait, Random: rand.Reader}
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// signingIn returns the queries of the ways to sign in.
func (f *front) signingIn() map[string]string {
	f.signIn.write("token", f.newToken(0)+"\n")
	return map[string]string{
		"token":      "token-file=FOLDER/token",
		"approle":    "role-id-file=FOLDER/role-id&secret-id-file=FOLDER/secret-id",
		"kubernetes": "role=keywright&jwt-file=FOLDER/jwt",
		"cert":       "cert-file=FOLDER/client.pem&key-file=FOLDER/client.key&auth-path=team/cert",
	}
}

// uri names a key, signing in one way.
func (f *front) uri(key, auth string) string {
	query := strings.ReplaceAll(f.signingIn()[auth], "FOLDER", f.signIn.folder)
	host := strings.TrimPrefix(f.server.URL, "https://")
	return "vault://" + host + "/" + mount + "/" + key + "?auth=" + auth + "&" + query + "&ca-file=" + f.ca
}

func (f *front) open(tb testing.TB, key, auth string) *vault.Root {
	tb.Helper()
	r, err := vault.Open(tb.Context(), f.uri(key, auth), options())
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, r.Close()) })
	return r
}

func TestConformance(t *testing.T) {
	for _, c := range []struct{ keyType, auth string }{
		{"aes256-gcm96", "approle"}, {"chacha20-poly1305", "token"}, {"aes256-gcm96", "kubernetes"}, {"aes256-gcm96", "cert"},
	} {
		t.Run(c.keyType+" "+c.auth, func(t *testing.T) {
			t.Parallel()
			roottest.Run(t, func(t *testing.T) roottest.Subject { return subject(t, c.keyType, c.auth) })
		})
	}
}

func subject(t *testing.T, keyType, auth string) roottest.Subject {
	f := started(t)
	f.makeKey(t, "keywright", map[string]any{"type": keyType})
	f.makeKey(t, "other", map[string]any{"type": keyType})
	return roottest.Subject{
		Root:     f.open(t, "keywright", auth),
		Again:    func(t testing.TB) root.Root { return f.open(t, "keywright", auth) },
		Other:    func(t testing.TB) root.Root { return f.open(t, "other", auth) },
		Down:     func(testing.TB) { f.set(func() { f.down = true }) },
		Up:       func(testing.TB) { f.set(func() { f.down = false }) },
		Slow:     func(_ testing.TB, d time.Duration) { f.set(func() { f.slow = d }) },
		Throttle: func(_ testing.TB, n int) { f.set(func() { f.throttle = n }) },
		Rotate:   func(t testing.TB) { f.operate(t, logical.UpdateOperation, "keys/keywright/rotate", nil) },
		Forbid:   func(testing.TB) { f.set(func() { f.policy = policy{} }) },
	}
}
