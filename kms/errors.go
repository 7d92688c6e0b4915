package kms

import (
	"errors"
	"fmt"
)

// NotFoundError is an [ErrNotFound] that says of what kind the thing was to be:
// machine, measurement, volume, keyring, keyring version or root.
type NotFoundError struct {
	Kind string
	// Ref is what it was looked for by.
	Ref string
}

// Error returns "machine/web-17: not found".
func (e *NotFoundError) Error() string {
	return fmt.Sprintf("%s/%.128s: %v", e.Kind, e.Ref, ErrNotFound)
}

// Unwrap returns [ErrNotFound].
func (e *NotFoundError) Unwrap() error { return ErrNotFound }

// WrapError means that a root did not wrap the key of a new keyring version, which
// needs every root.
type WrapError struct {
	Root string
	// Cause is what the root answered.
	Cause error
}

// Error returns the cause's text.
func (e *WrapError) Error() string { return e.Cause.Error() }

// Unwrap returns the cause.
func (e *WrapError) Unwrap() error { return e.Cause }

var (
	// ErrNotFound means that no row has that key.
	ErrNotFound = errors.New("not found")
	// ErrExists means that a row with that key exists already.
	ErrExists = errors.New("exists already")
	// ErrChanged means that a row is not what it was when it was read.
	ErrChanged = errors.New("changed meanwhile")
	// ErrRedeemed means that a challenge was redeemed before.
	ErrRedeemed = errors.New("the challenge was redeemed before")
	// ErrRetired means that a row names a keyring version that opens nothing.
	ErrRetired = errors.New("the keyring version opens nothing")
	// ErrDeposed means that somebody else leads by now: what the leader before wants
	// written is not.
	ErrDeposed = errors.New("another server leads by now")
	// ErrPaused means that rotations are held.
	ErrPaused = errors.New("rotations are paused")
	// ErrUnavailable means that the store or a root cannot answer now, and that
	// the same request may succeed later.
	ErrUnavailable = errors.New("unavailable")
	// ErrRoots means that no root of trust opens a keyring version that is needed,
	// and that one may do later. It is an [ErrUnavailable] too.
	ErrRoots = fmt.Errorf("no root of trust answers: %w", ErrUnavailable)
	// ErrRootsRefuse means that no root of trust opens a keyring version that is
	// needed, and that none will before somebody changes something.
	ErrRootsRefuse = errors.New("no root of trust opens it")
)
