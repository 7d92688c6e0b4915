package kms

import (
	"context"
	"time"
)

// KeyringUse tells that a keyring version wrapped for the key API: there are
// ciphertexts of it outside, which no row counts. What removes a version has to
// be told by a person that they are gone.
type KeyringUse struct {
	Keyring string
	Version uint32
	First   time.Time // when it first did
}

// KeyringUses is the store as whoever removes keyring versions sees it.
type KeyringUses interface {
	// KeyringUses returns all uses, ordered by keyring and version.
	KeyringUses(ctx context.Context) ([]KeyringUse, error)
}
