// Package root says what a root of trust is: a home for one key that never
// leaves it, and that wraps the keys of keyring versions.
//
// Invariants that every root keeps, and that package roottest holds each to:
//   - What was wrapped under one context unwraps under no other.
//   - What an older version of the root's key wrapped still unwraps, until
//     somebody withdraws that version at the root.
//   - An error tells by its class whether to try again: see [ErrUnavailable],
//     [ErrRefused] and [ErrDoesNotOpen].
//   - A call ends with its context.
//   - No error holds key material.
//
// It refuses to know which roots exist: each has a package of its own.
package root

import (
	"context"
	"errors"

	"keywright.dev/kms/secret"
)

// The classes of a root's errors.
var (
	// ErrUnavailable means that the root did not answer in time, or answered that
	// it is overloaded: the same call may succeed later.
	ErrUnavailable = errors.New("root of trust is unavailable")
	// ErrRefused means that the root knows us not, or does not let us do this:
	// somebody must change its configuration or ours.
	ErrRefused = errors.New("root of trust refuses")
	// ErrDoesNotOpen means that the wrapped key is not one of this root and
	// context, or was altered. It never opens by trying again.
	ErrDoesNotOpen = errors.New("wrapped key does not open under this root and context")
)

// KeySize is the size of the keys that roots wrap, in bytes.
const KeySize = 32

// MaxWrapped bounds what Wrap returns, in bytes.
const MaxWrapped = 64 << 10

// Root wraps and unwraps keys of [KeySize] bytes. Its methods may be called by
// several goroutines at once.
type Root interface {
	// URI names the root, for example file:8c1f…, by what stays the same wherever
	// it is reached from. It holds no secret.
	URI() string
	// Version names the version of its key that Wrap uses now, for example "3";
	// empty for a root whose key has no versions, or that does not show them. It
	// may ask the root.
	Version(ctx context.Context) (string, error)
	// Wrap encrypts key, bound to context (not secret, any length). Only this root
	// can read the result.
	Wrap(ctx context.Context, key secret.Bytes, context []byte) (Wrapped, error)
	// Unwrap is the inverse of Wrap. A nil error means that the root itself
	// decrypted just now.
	Unwrap(ctx context.Context, ciphertext, context []byte) (secret.Bytes, error)
}

// Wrapped is a key that a root wrapped.
type Wrapped struct {
	Ciphertext []byte // opaque to all but the root, at most [MaxWrapped] bytes
	Version    string // as [Root.Version] names the one that was used
}
