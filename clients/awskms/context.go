package awskms

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// The pairs of the encryption context. They are part of what is wrapped: a change
// would leave it closed.
const (
	// purposeKey and purpose are the same for all that we wrap, so that a policy can
	// demand them.
	purposeKey = "keywright"
	purpose    = "root/v1"
	contextKey = "keywright-context"
	digestKey  = "keywright-context-sha256"
	// maxValue is what a constraint of a grant can hold, in bytes.
	maxValue = 384
)

// encryptionContext writes context as KMS has it, where it can be read in
// CloudTrail and matched in policies: letters, digits, the comma and -._~/:@=+ as
// they are, any other byte as % and two upper-case hex digits. What would be
// longer than 384 bytes is written as its SHA-256 in hex, under a key of its own;
// an empty context has no pair. Two contexts never give the same pairs.
func encryptionContext(context []byte) map[string]string {
	pairs := map[string]string{purposeKey: purpose}
	if len(context) == 0 {
		return pairs
	}
	if text := escape(context); len(text) <= maxValue {
		pairs[contextKey] = text
		return pairs
	}
	digest := sha256.Sum256(context)
	pairs[digestKey] = hex.EncodeToString(digest[:])
	return pairs
}

func escape(context []byte) string {
	var text strings.Builder
	for _, b := range context {
		if plain(b) {
			text.WriteByte(b)
		} else {
			fmt.Fprintf(&text, "%%%02X", b)
		}
	}
	return text.String()
}

// plain leaves out what policies and shells read in ways of their own.
func plain(b byte) bool {
	switch {
	case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9':
		return true
	default:
		return strings.IndexByte("-._~/:@=+,", b) >= 0
	}
}
