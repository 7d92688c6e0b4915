// Package quorum is the root of trust that opens with people alone: it splits
// the key of a keyring version by Shamir's scheme into shares, one for each
// custodian, and encrypts each to that custodian with age. Any threshold of them
// together give the key again, when every other root is lost.
//
// Invariants:
//   - Wrapping needs public recipients alone, works offline, and nothing that
//     the service holds unwraps: [Root.Unwrap] always is [root.ErrNeedsPeople].
//   - A share names its set, and the set is named by a digest of everything that
//     is public about it. So shares of two sets never combine, and a share that
//     is damaged, wrong or foreign is told by itself, with whose it is.
//   - A key that was combined is checked against the commitment, the context and
//     the check value that were split with it before anybody gets it.
//   - A share leaves its custodian only encrypted to whoever combines.
//   - Whoever holds the key can tell whether a wrapper was altered, without any
//     custodian: [Root.Verify].
//
// It is as strong as the weakest threshold of custodians. It refuses a threshold
// of one among several, and recipients of mixed kinds.
//
// docs/formats/quorum.md is the specification, docs/roots/recovery.md is for
// operators and custodians.
package quorum

import (
	"errors"
	"fmt"

	"keywright.dev/kms/root"
)

const (
	// Scheme is that of the URIs of this root.
	Scheme = "age-quorum"
	// MaxCustodians bounds the recipients of a quorum.
	MaxCustodians = 16
	// MaxContext bounds what Wrap binds a key to, in bytes.
	MaxContext = 192
)

// What can be wrong with a share, a wrapper, or what shares combine to.
var (
	// ErrMalformed means that bytes are no share, or no wrapper, of this format:
	// they were damaged, cut off, or are something else.
	ErrMalformed = fmt.Errorf("%w: damaged, or something else", root.ErrDoesNotOpen)
	// ErrWrong means that a share is whole and is not the one that was made.
	ErrWrong = fmt.Errorf("%w: it is not the share that was made for this custodian", root.ErrDoesNotOpen)
	// ErrForeign means that a share is of a set that is not wanted.
	ErrForeign = fmt.Errorf("%w: it is of another set", root.ErrDoesNotOpen)
	// ErrAltered means that a wrapper is not as it was made, or not for this key
	// and context.
	ErrAltered = fmt.Errorf("%w: the wrapper was altered, or wraps another key", root.ErrDoesNotOpen)
	// ErrTooFew means that more custodians must give their shares.
	ErrTooFew = errors.New("too few shares")
)
