package luks

import (
	"crypto/pbkdf2"
	"crypto/sha1" //nolint:gosec // Volumes made with LUKS1 defaults use it, inside PBKDF2 and the splitter.
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"errors"
	"fmt"
	"hash"
	"runtime"
	"unsafe"

	"keywright.dev/kms/secret"
)

// confirm compares the key with the segment's digest, as validated. luks.go has
// compared too, but takes any key where a digest is empty, and the digest that it
// read is not what the volume's identity was computed from.
func (v *Volume) confirm(volumeKey secret.Bytes) error {
	d := v.digests[v.digestID]
	newHash, _ := hashByName(d.Hash)
	b := volumeKey.Expose()
	// The standard library takes a string. A view of the bytes leaves no copy
	// that could not be wiped; it does not outlive the call.
	view := unsafe.String(unsafe.SliceData(b), len(b)) //nolint:gosec // See above.
	computed, err := pbkdf2.Key(newHash, view, d.Salt, int(d.Iterations), len(d.Digest))
	runtime.KeepAlive(b)
	if err != nil {
		return fmt.Errorf("computing the volume key's digest: %w", err)
	}
	if subtle.ConstantTimeCompare(computed, d.Digest) != 1 {
		return errors.New("what came out is not the volume key that the header's digest names")
	}
	return nil
}

// hashByName knows the hashes of digests and splitters.
func hashByName(name string) (func() hash.Hash, bool) {
	switch name {
	case "sha1":
		return sha1.New, true
	case "sha224":
		return sha256.New224, true
	case "sha256":
		return sha256.New, true
	case "sha384":
		return sha512.New384, true
	case "sha512":
		return sha512.New, true
	default:
		return nil, false
	}
}
