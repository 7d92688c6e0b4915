package local

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// digestLine begins the last line of a file that tells damage from everything else
// that may be wrong.
const digestLine = "sha256 "

// AddDigest adds the line of the SHA-256 digest of lines, each of which ends with a
// line feed.
func AddDigest(lines string) string {
	digest := sha256.Sum256([]byte(lines))
	return lines + digestLine + hex.EncodeToString(digest[:]) + "\n"
}

// CutDigest is the inverse of [AddDigest]; false where the digest is another.
func CutDigest(text string) (lines string, whole bool) {
	at := strings.LastIndex(strings.TrimSuffix(text, "\n"), "\n") + 1
	return text[:at], AddDigest(text[:at]) == text
}
