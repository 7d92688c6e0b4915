// Package recovery owns the form of recovery keys, which people type to open a
// volume when no service is there, and the copies of them that are encrypted to
// people with age.
//
// Invariants:
//   - A key holds 256 random bits and is exactly the content of its keyslot: what
//     somebody types at any cryptsetup prompt, without a line feed.
//   - A copy's plaintext is exactly that key, so that it opens the keyslot as a
//     key file too.
//
// It refuses recipients that age would not encrypt to together. docs/recovery.md
// is for people.
package recovery

import (
	"fmt"
	"io"

	"keywright.dev/kms/secret"
)

const (
	// randomSize is the length of what a key encodes, in bytes.
	randomSize = 32
	groupSize  = 8
	// Length is that of a key, in bytes: 64 letters in groups of 8, and dashes.
	Length = 2*randomSize + 2*randomSize/groupSize - 1
	// modhex has the letters that stand in the same place on most keyboards, each
	// for four bits: what systemd-cryptenroll writes its recovery keys in.
	modhex = "cbdefghijklnrtuv"
)

// NewKey makes a recovery key: 64 modhex letters in groups of eight, with a dash
// between two.
func NewKey(random io.Reader) (secret.Bytes, error) {
	bits, err := secret.Random(random, randomSize)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("making a recovery key: %w", err)
	}
	defer bits.Wipe()
	key := make([]byte, 0, Length)
	for i, b := range bits.Expose() {
		if i > 0 && 2*i%groupSize == 0 {
			key = append(key, '-')
		}
		key = append(key, modhex[b>>4], modhex[b&0xf])
	}
	return secret.New(key), nil
}
