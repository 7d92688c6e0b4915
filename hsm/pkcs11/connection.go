//go:build cgo

package pkcs11

import (
	"bytes"
	"context"
	"fmt"
	"io"

	p11 "github.com/miekg/pkcs11"

	"keywright.dev/kms/root"
	"keywright.dev/kms/secret"
)

// connection is a token with its key and a pool of sessions that are logged in.
type connection struct {
	*token
	modules *Modules
	random  io.Reader
	flags   uint // of its sessions
	key     key
	users   int // guarded by the root's mutex

	idle     chan p11.SessionHandle // sessions that nobody uses
	unopened chan struct{}          // one for each session that may still be opened
}

// connect reaches the token and logs in; flags are those of its sessions.
func connect(a *address, s Settings, l *login, flags uint) (*connection, error) {
	t, err := s.Modules.token(a)
	if err != nil {
		return nil, err
	}
	size := poolSize(t.info.MaxSessionCount)
	c := &connection{
		token: t, modules: s.Modules, random: s.Random, flags: flags,
		idle: make(chan p11.SessionHandle, size), unopened: make(chan struct{}, size),
	}
	for range size {
		c.unopened <- struct{}{}
	}
	// One session stays open as long as the connection: the login ends with the last.
	err = c.withSession(context.Background(), func(session p11.SessionHandle) error { return l.in(t, session) })
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// poolSize bounds our sessions by what the token allows, where it says so.
func poolSize(allowed uint) int {
	if allowed == p11.CK_EFFECTIVELY_INFINITE || allowed == p11.CK_UNAVAILABLE_INFORMATION {
		return maxCalls
	}
	return int(min(allowed, maxCalls))
}

// closeUnused is called with the root's mutex held.
func (c *connection) closeUnused() {
	if c.users == 0 {
		c.close()
	}
}

// close is called when nobody uses the connection.
func (c *connection) close() {
	for len(c.idle) > 0 {
		_ = c.CloseSession(<-c.idle) // it may be gone already
	}
	c.modules.done(c.module)
}

// withSession calls do with a session from the pool.
func (c *connection) withSession(ctx context.Context, do func(p11.SessionHandle) error) error {
	session, err := c.take(ctx)
	if err != nil {
		return err
	}
	defer func() { c.idle <- session }()
	return do(session)
}

// take prefers a session that is open.
func (c *connection) take(ctx context.Context) (p11.SessionHandle, error) {
	select {
	case session := <-c.idle:
		return session, nil
	default:
	}
	select {
	case session := <-c.idle:
		return session, nil
	case <-c.unopened:
		session, err := c.session(c.flags)
		if err != nil {
			c.unopened <- struct{}{}
		}
		return session, err
	case <-ctx.Done():
		return 0, fmt.Errorf("%w: waiting for a session: %w", root.ErrUnavailable, ctx.Err())
	}
}

// seal returns the IV and what the token made of key.
func (c *connection) seal(session p11.SessionHandle, key secret.Bytes, aad []byte) ([]byte, error) {
	iv := make([]byte, ivSize)
	if _, err := io.ReadFull(c.random, iv); err != nil {
		return nil, fmt.Errorf("reading random bytes: %w", err)
	}
	params := p11.NewGCMParams(iv, aad, tagSize*8)
	defer params.Free()
	if err := c.EncryptInit(session, gcm(params), c.key.handle); err != nil {
		return nil, fmt.Errorf("C_EncryptInit: %w", err)
	}
	sealed, err := c.Encrypt(session, key.Expose())
	if err != nil {
		return nil, fmt.Errorf("C_Encrypt: %w", err)
	}
	if !bytes.Equal(params.IV(), iv) {
		return nil, fmt.Errorf("%w: the token replaced the IV by its own", root.ErrRefused)
	}
	if len(sealed) != sealedSize {
		return nil, fmt.Errorf("%w: the token made %d bytes of %d, and not %d", root.ErrRefused, len(sealed), key.Len(), sealedSize)
	}
	return join(iv, sealed), nil
}

// open is the inverse of seal. Of an altered ciphertext many a module says no more
// than that something went wrong: so it is one where the token opens a fresh
// ciphertext, and this one still not.
func (c *connection) open(session p11.SessionHandle, iv, sealed, aad []byte) (secret.Bytes, error) {
	key, err := c.decrypt(session, iv, sealed, aad)
	if isCode(err, vague()...) && c.selfTest(session) == nil {
		key, err = c.decrypt(session, iv, sealed, aad)
		if isCode(err, vague()...) {
			err = fmt.Errorf("%w: %w", root.ErrDoesNotOpen, err)
		}
	}
	if isCode(err, altered()...) {
		err = fmt.Errorf("%w: %w", root.ErrDoesNotOpen, err)
	}
	return key, err
}

func (c *connection) decrypt(session p11.SessionHandle, iv, sealed, aad []byte) (secret.Bytes, error) {
	params := p11.NewGCMParams(iv, aad, tagSize*8)
	defer params.Free()
	if err := c.DecryptInit(session, gcm(params), c.key.handle); err != nil {
		return secret.Bytes{}, fmt.Errorf("C_DecryptInit: %w", err)
	}
	opened, err := c.Decrypt(session, sealed)
	key := secret.New(opened)
	if err != nil {
		key.Wipe()
		return secret.Bytes{}, fmt.Errorf("C_Decrypt: %w", err)
	}
	if size := key.Len(); size != root.KeySize {
		key.Wipe()
		return secret.Bytes{}, fmt.Errorf("%w: the token opened it to %d bytes, and not %d", root.ErrRefused, size, root.KeySize)
	}
	return key, nil
}

func gcm(params *p11.GCMParams) []*p11.Mechanism {
	return []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_GCM, params)}
}

// proven finds the key and has the token use it.
func (c *connection) proven(session p11.SessionHandle, a *address) (err error) {
	if c.key, err = c.theKey(session, a); err != nil {
		return err
	}
	return c.selfTest(session)
}

// selfTest has the token open what it encrypts, under a context that no keyring
// version has.
func (c *connection) selfTest(session p11.SessionHandle) error {
	const context = "keywright/pkcs11-test/v1"
	canary, err := secret.Random(c.random, root.KeySize)
	if err != nil {
		return err
	}
	defer canary.Wipe()
	wrapped, err := c.seal(session, canary, []byte(context))
	if err != nil {
		return fmt.Errorf("having the token encrypt: %w", err)
	}
	got, err := c.decrypt(session, wrapped[1:1+ivSize], wrapped[1+ivSize:], []byte(context))
	if err != nil {
		return fmt.Errorf("having the token decrypt: %w", err)
	}
	defer got.Wipe()
	if !got.Equal(canary) {
		return fmt.Errorf("%w: the token does not open what it encrypted just before", root.ErrRefused)
	}
	return nil
}
