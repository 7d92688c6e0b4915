//go:build cgo

package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	p11 "github.com/miekg/pkcs11"

	"keywright.dev/kms/root"
	"keywright.dev/kms/secret"
)

// Root is a key on a token.
type Root struct {
	at       address
	settings Settings
	uri      string
	calls    chan struct{} // holds one for each call under way
	writes   bool          // the key is still to be made

	mu      sync.Mutex
	login   login
	current *connection // nil where there is none
	closed  bool
}

// Open reaches the key that uri identifies (RFC 7512). A token that is away, or
// whose PIN is wrong or locked, is no error where uri has the token's serial number
// and the key's id: calls will say so. What stays wrong until somebody mends it is
// [root.ErrRefused].
func Open(ctx context.Context, uri string, s Settings) (*Root, error) {
	r, err := prepare(uri, s)
	if err != nil {
		return nil, fmt.Errorf("opening a PKCS#11 root: %w", err)
	}
	name, named := r.at.name()
	r.uri = name
	found, err := call(ctx, r, job[string]{do: func(_ context.Context, c *connection) (string, error) {
		at := address{serial: c.info.SerialNumber, id: c.key.id}
		name, _ := at.name()
		return name, nil
	}})
	switch {
	case err == nil:
		r.uri = found
		return r, nil
	case !named:
		r.Close(ctx)
		return nil, fmt.Errorf("opening the PKCS#11 root %s: %w (with serial and id in its URI a root opens without its token)", r.at.String(), err)
	case errors.Is(err, root.ErrUnavailable) || errors.Is(err, errPIN):
		return r, nil
	default:
		r.Close(ctx)
		return nil, fmt.Errorf("opening the PKCS#11 root %s: %w", r.uri, err)
	}
}

// prepare does what needs no token: a wrong configuration shows even where there
// is none.
func prepare(uri string, s Settings) (*Root, error) {
	at, err := parse(uri)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", root.ErrRefused, err)
	}
	if s.Modules == nil {
		s.Modules = &Modules{}
	}
	if err := checkModule(at.module); err != nil {
		return nil, err
	}
	pin, err := readPIN(at.pin, s.Credentials)
	if err != nil {
		return nil, err
	}
	pin.Wipe()
	return &Root{
		at: at, settings: s, calls: make(chan struct{}, maxCalls),
		login: login{file: at.pin, credentials: s.Credentials},
	}, nil
}

// URI returns pkcs11:serial=…;id=…, the names of token and key, wherever they are
// reached.
func (r *Root) URI() string { return r.uri }

// Version is empty: a key of PKCS#11 has no versions.
func (r *Root) Version(context.Context) (string, error) { return "", nil }

// Wrap has the token encrypt key by AES-256-GCM with context as additional data.
func (r *Root) Wrap(ctx context.Context, key secret.Bytes, context []byte) (root.Wrapped, error) {
	if key.Len() != root.KeySize {
		return root.Wrapped{}, fmt.Errorf("wrapping under %s: a key has %d bytes and not %d", r.uri, root.KeySize, key.Len())
	}
	// The caller may wipe its own while a call that it gave up still runs.
	plain, aad := key.Clone(), slices.Clone(context)
	ciphertext, err := call(ctx, r, job[[]byte]{do: sealing(plain, aad), end: plain.Wipe})
	if err != nil {
		return root.Wrapped{}, fmt.Errorf("wrapping under %s: %w", r.uri, err)
	}
	return root.Wrapped{Ciphertext: ciphertext}, nil
}

func sealing(plain secret.Bytes, aad []byte) func(context.Context, *connection) ([]byte, error) {
	return func(ctx context.Context, c *connection) (sealed []byte, err error) {
		err = c.withSession(ctx, func(session p11.SessionHandle) error {
			sealed, err = c.seal(session, plain, aad)
			return err
		})
		return sealed, err
	}
}

// Unwrap has the token decrypt what it wrapped.
func (r *Root) Unwrap(ctx context.Context, ciphertext, context []byte) (secret.Bytes, error) {
	iv, sealed, err := split(slices.Clone(ciphertext[:min(len(ciphertext), wrappedSize+1)]))
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("unwrapping under %s: %w", r.uri, err)
	}
	key, err := call(ctx, r, job[secret.Bytes]{do: opening(iv, sealed, slices.Clone(context)), drop: secret.Bytes.Wipe})
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("unwrapping under %s: %w", r.uri, err)
	}
	return key, nil
}

func opening(iv, sealed, aad []byte) func(context.Context, *connection) (secret.Bytes, error) {
	return func(ctx context.Context, c *connection) (key secret.Bytes, err error) {
		err = c.withSession(ctx, func(session p11.SessionHandle) error {
			key, err = c.open(session, iv, sealed, aad)
			return err
		})
		return key, err
	}
}

// Close ends the connection when the calls under way have ended. It waits for that
// until ctx ends.
func (r *Root) Close(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.mu.Lock() // may be held by a call that hangs
		defer r.mu.Unlock()
		r.closed = true
		r.login.refused.Wipe()
		if c := r.current; c != nil {
			r.current = nil
			c.closeUnused()
		}
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

var errClosed = fmt.Errorf("%w: the root was closed", root.ErrUnavailable)

// connection returns the current one or makes it; [Root.leave] ends its use.
func (r *Root) connection() (*connection, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, errClosed
	}
	if r.current == nil {
		c, err := r.connect()
		if err != nil {
			return nil, err
		}
		r.current = c
	}
	r.current.users++
	return r.current, nil
}

func (r *Root) connect() (*connection, error) {
	if r.writes {
		return connect(&r.at, r.settings, &r.login, p11.CKF_RW_SESSION)
	}
	c, err := connect(&r.at, r.settings, &r.login, 0)
	if err != nil {
		return nil, err
	}
	err = c.withSession(context.Background(), func(session p11.SessionHandle) error {
		return c.proven(session, &r.at)
	})
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// leave ends a use of a connection; one that broke is not used again, and is closed
// by the last who leaves it.
func (r *Root) leave(c *connection, broke bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.users--
	if broke && r.current == c {
		r.current = nil
	}
	if r.current != c {
		c.closeUnused()
	}
}
