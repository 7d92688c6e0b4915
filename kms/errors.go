package kms

import "errors"

var (
	// ErrNotFound means that no row has that key.
	ErrNotFound = errors.New("not found")
	// ErrExists means that a row with that key exists already.
	ErrExists = errors.New("exists already")
	// ErrRedeemed means that a challenge was redeemed before.
	ErrRedeemed = errors.New("the challenge was redeemed before")
	// ErrUnavailable means that the store or a root cannot answer now, and that
	// the same request may succeed later.
	ErrUnavailable = errors.New("unavailable")
)
