package exchange

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

const fingerprintPrefix = "sha256:"

// FormatFingerprint returns a fingerprint as people see it: "sha256:" and 64
// lower-case hexadecimal digits.
func FormatFingerprint(fingerprint [sha256.Size]byte) string {
	return fingerprintPrefix + hex.EncodeToString(fingerprint[:])
}

// ParseFingerprint reads what [FormatFingerprint] writes, and nothing else.
func ParseFingerprint(text string) ([sha256.Size]byte, error) {
	digits, ok := strings.CutPrefix(text, fingerprintPrefix)
	raw, err := hex.DecodeString(digits)
	if !ok || err != nil || len(raw) != sha256.Size || digits != strings.ToLower(digits) {
		return [sha256.Size]byte{}, fmt.Errorf("fingerprint %.80q is not %s and 64 lower-case hexadecimal digits", text, fingerprintPrefix)
	}
	return [sha256.Size]byte(raw), nil
}
