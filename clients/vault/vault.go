// Package vault is a root of trust on the Transit engine of HashiCorp Vault or
// OpenBao: a key that Vault holds, and that it encrypts and decrypts with.
//
// Invariants:
//   - The context of a wrapped key is Transit's associated data, byte for byte.
//     So the key in Transit is aes256-gcm96 or chacha20-poly1305, not derived,
//     and is looked at before anything is wrapped under it.
//   - A wrapped key is what Transit returns, vault:vN:…, in its one canonical
//     form: Transit itself reads several forms as the same.
//   - Transit's own rewrap is not used: it drops associated data. A new wrapper is
//     an Unwrap and a Wrap.
//   - Credentials are in files, which are read again at every use; none is in a
//     URI. The environment of Vault's own tools (VAULT_…) and proxies do not count.
//   - Request and answer bodies with a key in them are wiped when they were used.
//     Not within reach are the copies that net/http and TLS make on their way, and
//     tokens, which Vault's library takes as strings.
//
// It refuses plain HTTP to other hosts, unless that is asked for by name, and
// answers of a size or form that Transit does not give.
package vault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"

	"keywright.dev/kms/root"
	"keywright.dev/kms/secret"
)

// Options are what a root needs besides its URI.
type Options struct {
	Clock func() time.Time
	// Wait returns after d, or with ctx's error when that ends before.
	Wait func(ctx context.Context, d time.Duration) error
	// Random spreads what is tried again.
	Random io.Reader
	// Credentials is the folder of files that the URI names without a path, as the
	// service manager passes it. Empty where there is none.
	Credentials string
}

// Root is a key of a Transit engine.
type Root struct {
	config  config
	options Options
	client  *api.Client
	auth    authenticator
	close   []func()
	checked atomic.Bool // the key in Transit is of a kind that we use
}

// Open prepares the root that uri names. It calls nobody, so that it succeeds
// while Vault is down. Files for TLS must be there, credentials may come later.
// The root keeps a token from expiring until Close.
func Open(ctx context.Context, uri string, options Options) (*Root, error) {
	c, err := parse(uri)
	if err != nil {
		return nil, fmt.Errorf("reading the URI of a vault root: %w", err)
	}
	files := files{options.Credentials}
	transport, err := newTransport(c, files)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", c.stableName(), err)
	}
	client, err := newClient(c, transport)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", c.stableName(), err)
	}
	r := &Root{config: c, options: options, client: client}
	auth, end := r.authenticate(context.WithoutCancel(ctx), files)
	r.auth, r.close = auth, []func(){end, transport.CloseIdleConnections}
	return r, nil
}

func newClient(c config, transport http.RoundTripper) (*api.Client, error) {
	client, err := api.NewClient(&api.Config{
		Address:          c.address(),
		HttpClient:       &http.Client{Transport: transport, CheckRedirect: checkRedirect},
		DisableRedirects: true, // the library's drop the body; see checkRedirect
		CheckRetry:       func(context.Context, *http.Response, error) (bool, error) { return false, nil },
	})
	if err != nil {
		return nil, fmt.Errorf("preparing Vault's client: %w", err)
	}
	// The library takes these from the environment.
	client.ClearToken()
	client.SetHeaders(http.Header{api.RequestHeaderName: {"true"}})
	client.SetWrappingLookupFunc(func(string, string) string { return "" })
	if c.namespace != "" {
		client.SetNamespace(c.namespace)
	}
	return client, nil
}

// Close ends the renewal of a token, and connections that are idle.
func (r *Root) Close() error {
	for _, end := range r.close {
		end()
	}
	return nil
}

// URI returns vault: and where the key is: host and port, or the name that the
// configuration gives instead, namespace, mount and key.
func (r *Root) URI() string { return r.config.stableName() }

// Version asks Transit for the newest version of the key.
func (r *Root) Version(ctx context.Context) (string, error) {
	key, err := r.usableKey(ctx)
	if err != nil {
		return "", fmt.Errorf("asking %s for its version: %w", r.URI(), err)
	}
	return strconv.Itoa(key.LatestVersion), nil
}

// Wrap has Transit encrypt key with context as associated data.
func (r *Root) Wrap(ctx context.Context, key secret.Bytes, context []byte) (root.Wrapped, error) {
	wrapped, err := r.wrap(ctx, key, context)
	if err != nil {
		return root.Wrapped{}, fmt.Errorf("wrapping under %s: %w", r.URI(), err)
	}
	return wrapped, nil
}

func (r *Root) wrap(ctx context.Context, key secret.Bytes, context []byte) (root.Wrapped, error) {
	if key.Len() != root.KeySize {
		return root.Wrapped{}, fmt.Errorf("the key has %d bytes, not %d", key.Len(), root.KeySize)
	}
	// Another type of key would take an empty context without binding to it.
	if !r.checked.Load() {
		if _, err := r.usableKey(ctx); err != nil {
			return root.Wrapped{}, err
		}
	}
	answer, err := r.ask(ctx, request{http.MethodPut, r.config.path("encrypt"), encryptBody(key, context)})
	if err != nil {
		return root.Wrapped{}, err
	}
	return parseEncrypted(answer)
}

// Unwrap has Transit decrypt. A version of the key that was withdrawn in Transit
// (min_decryption_version) is [root.ErrRefused]: somebody can bring it back.
func (r *Root) Unwrap(ctx context.Context, ciphertext, context []byte) (secret.Bytes, error) {
	key, err := r.unwrap(ctx, ciphertext, context)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("unwrapping under %s: %w", r.URI(), err)
	}
	return key, nil
}

func (r *Root) unwrap(ctx context.Context, ciphertext, context []byte) (secret.Bytes, error) {
	version, err := parseCiphertext(ciphertext)
	if err != nil {
		return secret.Bytes{}, err
	}
	answer, err := r.ask(ctx, request{http.MethodPut, r.config.path("decrypt"), decryptBody(ciphertext, context)})
	if f := new(failure); errors.As(err, &f) && f.status == http.StatusBadRequest {
		return secret.Bytes{}, r.explain(ctx, f, version)
	}
	if err != nil {
		return secret.Bytes{}, err
	}
	return parseDecrypted(answer)
}

// usableKey asks for the key's properties and refuses what cannot bind a context.
func (r *Root) usableKey(ctx context.Context) (keyInfo, error) {
	key, err := r.readKey(ctx)
	if err != nil {
		return keyInfo{}, err
	}
	if err := key.check(); err != nil {
		return keyInfo{}, err
	}
	r.checked.Store(true)
	return key, nil
}

func (r *Root) readKey(ctx context.Context) (keyInfo, error) {
	answer, err := r.ask(ctx, request{http.MethodGet, r.config.path("keys"), secret.Bytes{}})
	if f := new(failure); errors.As(err, &f) && f.status == http.StatusForbidden {
		return keyInfo{}, fmt.Errorf("%w; its policy must let us read %s", err, r.config.path("keys"))
	}
	if err != nil {
		return keyInfo{}, err
	}
	return parseKey(answer)
}
