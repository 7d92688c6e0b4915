package luks

import (
	"crypto/aes"
	"crypto/pbkdf2"
	"crypto/sha1" //nolint:gosec // Volumes made with LUKS1 defaults use it, inside PBKDF2 and the splitter.
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"runtime"
	"unsafe"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/xts"

	"keywright.dev/kms/secret"
)

// ErrWrongKey is returned when a key does not open a keyslot.
var ErrWrongKey = errors.New("the key does not open the keyslot")

// Bounds on what a keyslot may cost before its key is known to be right: a
// header that somebody changed must not keep a boot busy. cryptsetup's own
// defaults stay below all of them.
const (
	maxIterations = 20_000_000
	maxTime       = 64
	maxMemory     = 4 << 20 // KiB
	maxCPUs       = 64
)

const areaSectorSize = 512

// Unseal returns the volume key that key opens in a keyslot (specification,
// section 4, and cryptsetup's luks2_keyslot_luks2.c). A key that does not is
// [ErrWrongKey]. The keyslot's area is read now; the digest validated before
// decides whether what came out is the volume key.
func (v *Volume) Unseal(slot int, key secret.Bytes) (secret.Bytes, error) {
	k, exists := v.keyslots[id(slot)]
	if !exists || !v.opens(slot) {
		return secret.Bytes{}, fmt.Errorf("unsealing keyslot %d: there is no such keyslot for the volume's key", slot)
	}
	volumeKey, err := v.unseal(k, key)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("unsealing keyslot %d: %w", slot, err)
	}
	return volumeKey, nil
}

// opens reports whether the keyslot holds the key of the segment.
func (v *Volume) opens(slot int) bool {
	for _, bound := range v.digests[v.digestID].Keyslots {
		if int(bound) == slot {
			return true
		}
	}
	return false
}

func (v *Volume) unseal(k keyslot, key secret.Bytes) (secret.Bytes, error) {
	newHash, known := hashByName(k.AF.Hash)
	if !known {
		return secret.Bytes{}, fmt.Errorf("splitter hash %q is not supported", k.AF.Hash)
	}
	if k.Area.Encryption != cipherSpec || !cipherKeySize(k.Area.KeySize) {
		return secret.Bytes{}, fmt.Errorf("area cipher %q with %d bytes of key is not supported", k.Area.Encryption, k.Area.KeySize)
	}
	areaKey, err := k.KDF.derive(key, k.Area.KeySize)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer areaKey.Wipe()
	split := make([]byte, k.KeySize*stripes)
	defer wipe(split)
	if _, err := v.header.source.ReadAt(split, int64(k.Area.Offset)); err != nil {
		return secret.Bytes{}, fmt.Errorf("reading the keyslot's area: %w", err)
	}
	if err := decryptArea(split, areaKey); err != nil {
		return secret.Bytes{}, err
	}
	volumeKey := secret.New(merge(split, int(k.KeySize), newHash()))
	if err := v.confirm(volumeKey); err != nil {
		volumeKey.Wipe()
		return secret.Bytes{}, err
	}
	return volumeKey, nil
}

// confirm compares the key with the segment's digest.
func (v *Volume) confirm(volumeKey secret.Bytes) error {
	d := v.digests[v.digestID]
	newHash, _ := hashByName(d.Hash)
	computed, err := derivePBKDF2(newHash, volumeKey, d.Salt, d.Iterations, len(d.Digest))
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(computed, d.Digest) != 1 {
		return ErrWrongKey
	}
	return nil
}

func (k *kdf) derive(key secret.Bytes, size uint32) (secret.Bytes, error) {
	if k.Iterations > maxIterations || k.Time > maxTime || k.Memory > maxMemory || k.CPUs > maxCPUs {
		return secret.Bytes{}, fmt.Errorf("%s costs too much: iterations %d, time %d, memory %d KiB, cpus %d", k.Type, k.Iterations, k.Time, k.Memory, k.CPUs)
	}
	switch k.Type {
	case "argon2i":
		return secret.New(argon2.Key(key.Expose(), k.Salt, k.Time, k.Memory, uint8(k.CPUs), size)), nil
	case "argon2id":
		return secret.New(argon2.IDKey(key.Expose(), k.Salt, k.Time, k.Memory, uint8(k.CPUs), size)), nil
	}
	newHash, known := hashByName(k.Hash)
	if !known {
		return secret.Bytes{}, fmt.Errorf("hash %q of %s is not supported", k.Hash, k.Type)
	}
	derived, err := derivePBKDF2(newHash, key, k.Salt, k.Iterations, int(size))
	return secret.New(derived), err
}

func derivePBKDF2(newHash func() hash.Hash, key secret.Bytes, salt []byte, iterations uint32, size int) ([]byte, error) {
	b := key.Expose()
	// The standard library takes a string. A view of the bytes leaves no copy
	// that could not be wiped; it does not outlive the call.
	view := unsafe.String(unsafe.SliceData(b), len(b)) //nolint:gosec // See above.
	derived, err := pbkdf2.Key(newHash, view, salt, int(iterations), size)
	runtime.KeepAlive(b)
	if err != nil {
		return nil, fmt.Errorf("deriving by PBKDF2: %w", err)
	}
	return derived, nil
}

func decryptArea(split []byte, areaKey secret.Bytes) error {
	c, err := xts.NewCipher(aes.NewCipher, areaKey.Expose())
	if err != nil {
		return fmt.Errorf("preparing the area's cipher: %w", err)
	}
	for sector := range len(split) / areaSectorSize {
		block := split[sector*areaSectorSize : (sector+1)*areaSectorSize]
		c.Decrypt(block, block, uint64(sector))
	}
	return nil
}

// merge undoes the anti-forensic splitter (LUKS1 specification, section 2.4).
func merge(split []byte, size int, h hash.Hash) []byte {
	merged := make([]byte, size)
	last := len(split) - size
	for at := 0; at < last; at += size {
		subtle.XORBytes(merged, merged, split[at:at+size])
		diffuse(merged, h)
	}
	subtle.XORBytes(merged, merged, split[last:])
	return merged
}

// diffuse replaces every digest-sized block of b by the hash of its number and
// itself; the last block may be shorter.
func diffuse(b []byte, h hash.Hash) {
	var number [4]byte
	sum := make([]byte, 0, h.Size())
	defer func() { wipe(sum[:cap(sum)]) }()
	for i := 0; len(b) > 0; i++ {
		block := b[:min(h.Size(), len(b))]
		binary.BigEndian.PutUint32(number[:], uint32(i))
		h.Reset()
		h.Write(number[:])
		h.Write(block)
		copy(block, h.Sum(sum))
		b = b[len(block):]
	}
}

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

func wipe(b []byte) {
	clear(b)
	runtime.KeepAlive(b)
}
