// Package root says what a root of trust is: a home for one key that never
// leaves it, and that wraps the keys of keyring versions.
//
// Invariants that every root keeps:
//   - What was wrapped under one context unwraps under no other.
//   - An error tells by its class whether to try again: see [ErrUnavailable],
//     [ErrRefused] and [ErrDoesNotOpen].
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
	// ErrUnavailable means that the root did not answer, or answered that it is
	// overloaded: the same call may succeed later.
	ErrUnavailable = errors.New("root of trust is unavailable")
	// ErrRefused means that the root knows us not, or does not let us do this:
	// somebody must change its configuration or ours.
	ErrRefused = errors.New("root of trust refuses")
	// ErrDoesNotOpen means that the wrapped key is not one of this root and
	// context, or was altered. It never opens by trying again.
	ErrDoesNotOpen = errors.New("wrapped key does not open under this root and context")
)

// Root wraps and unwraps keys of 32 bytes. Its methods may be called by several
// goroutines at once.
type Root interface {
	// URI names the root, for example file:8c1f…, by what stays the same wherever
	// it is reached from. It holds no secret.
	URI() string
	// Wrap encrypts key, bound to context (not secret, any length), and returns
	// bytes that only this root can read.
	Wrap(ctx context.Context, key secret.Bytes, context []byte) ([]byte, error)
	// Unwrap is the inverse of Wrap. A nil error means that the root itself
	// decrypted just now.
	Unwrap(ctx context.Context, wrapped, context []byte) (secret.Bytes, error)
}
