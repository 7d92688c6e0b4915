package vault

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/hashicorp/vault/api"

	"keywright.dev/kms/root"
	"keywright.dev/kms/secret"
)

const (
	attempts   = 5
	firstPause = 200 * time.Millisecond // doubled each time
	// longestPause bounds what Vault may have us wait: whoever calls has a boot that waits.
	longestPause = 10 * time.Second
)

// request is one to Vault. Its body is wiped by whoever sends it.
type request struct {
	method string
	path   string // without /v1/
	body   secret.Bytes
}

// ask sends a request as whom we sign in as, and again where that may help. It
// wipes the body. What it returns is the body of the answer, the caller's to wipe.
func (r *Root) ask(ctx context.Context, req request) (secret.Bytes, error) {
	sent := &outgoing{body: req.body}
	defer sent.end()
	ctx = sent.in(ctx)
	for n := 0; ; n++ {
		answer, err := r.askOnce(ctx, req)
		f := new(failure)
		if err == nil || !errors.As(err, &f) || !f.again || n+1 == attempts || f.after > longestPause {
			return answer, err
		}
		if r.pause(ctx, n, f.after) != nil {
			return secret.Bytes{}, err
		}
	}
}

// pause waits at least as long as Vault asks for, spread so that those whom an
// outage brought together do not come back together.
func (r *Root) pause(ctx context.Context, n int, asked time.Duration) error {
	var random [8]byte
	if _, err := io.ReadFull(r.options.Random, random[:]); err != nil {
		return fmt.Errorf("reading randomness: %w", err)
	}
	step := firstPause << n
	spread := time.Duration(binary.BigEndian.Uint64(random[:]) % uint64(step))
	return r.options.Wait(ctx, max(asked, step/2)+spread/2)
}

// askOnce signs in anew where Vault refuses who we are signed in as.
func (r *Root) askOnce(ctx context.Context, req request) (secret.Bytes, error) {
	token, err := r.auth.token(ctx, secret.Bytes{})
	if err != nil {
		return secret.Bytes{}, err
	}
	answer, err := r.send(ctx, token, req)
	if !isForbidden(err) {
		return answer, err
	}
	other, signInErr := r.auth.token(ctx, token)
	switch {
	case errors.Is(signInErr, errNoOther):
	case signInErr != nil:
		return secret.Bytes{}, signInErr
	default:
		answer, err = r.send(ctx, other, req)
	}
	if isForbidden(err) {
		return secret.Bytes{}, fmt.Errorf("%w; either the token has ended, or no policy of it allows %s on %s",
			err, capability(req.method), req.path)
	}
	return answer, err
}

func isForbidden(err error) bool {
	f := new(failure)
	return errors.As(err, &f) && f.status == http.StatusForbidden
}

func capability(method string) string {
	if method == http.MethodGet {
		return "read"
	}
	return "update"
}

// send sends a request once. An empty token sends none.
func (r *Root) send(ctx context.Context, token secret.Bytes, req request) (secret.Bytes, error) {
	if err := ctx.Err(); err != nil {
		return secret.Bytes{}, &failure{class: root.ErrUnavailable, cause: err, text: "not asked: " + err.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := exchange(ctx, r.as(token).Logical(), req)
	if resp != nil {
		defer resp.Body.Close()
	}
	if err != nil {
		return secret.Bytes{}, failureOf(ctx, resp, err, r.options.Clock())
	}
	if resp.StatusCode != http.StatusOK {
		return secret.Bytes{}, malformed(fmt.Sprintf("its status is %d", resp.StatusCode))
	}
	answer, err := secret.Read(resp.Body, maxAnswer)
	if err != nil {
		return secret.Bytes{}, failureOf(ctx, resp, err, r.options.Clock())
	}
	return answer, nil
}

func (r *Root) as(token secret.Bytes) *api.Client {
	return r.client.WithRequestCallbacks(func(sent *api.Request) { sent.ClientToken = string(token.Expose()) })
}

func exchange(ctx context.Context, vault *api.Logical, req request) (*api.Response, error) {
	if req.method == http.MethodGet {
		return vault.ReadRawWithContext(ctx, req.path)
	}
	return vault.WriteRawWithContext(ctx, req.path, req.body.Expose())
}

// explain tells why Transit did not decrypt what the given version encrypted.
// It quotes Transit where it cannot.
func (r *Root) explain(ctx context.Context, f *failure, version int) error {
	if errors.Is(f, root.ErrDoesNotOpen) {
		return f
	}
	key, err := r.readKey(ctx)
	if err != nil {
		return f
	}
	if err := key.check(); err != nil {
		return err
	}
	if version < key.MinDecryptionVersion {
		path := r.config.path("keys")
		return refused("version %d of the key was withdrawn: its min_decryption_version is %d; "+
			"lower it (vault write %s/config min_decryption_version=%d), rewrap what depends on the old version, then withdraw it again",
			version, key.MinDecryptionVersion, path, version)
	}
	return f
}
