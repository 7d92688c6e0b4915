package root

import (
	"fmt"

	"keywright.dev/kms/secret"
)

// ErrNeedsPeople is the [ErrRefused] of a root that wraps by itself and opens
// with people alone: no configuration changes that, so that it is no fault.
var ErrNeedsPeople = fmt.Errorf("%w: it opens with people alone", ErrRefused)

// Offline is a root whose Unwrap always answers [ErrNeedsPeople].
type Offline interface {
	Root
	// Offline says who opens what it wraps, in words.
	Offline() string
	// Verify tells whether people would open what Wrap returned to the key, under
	// that context.
	Verify(ciphertext []byte, key secret.Bytes, context []byte) error
}
