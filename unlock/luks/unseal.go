package luks

import (
	"errors"
	"fmt"
	"reflect"

	luksgo "github.com/anatol/luks.go"

	"keywright.dev/kms/secret"
)

// ErrWrongKey is returned when a key does not open a keyslot.
var ErrWrongKey = errors.New("the key does not open the keyslot")

// Bounds on what a header may cost before a key is known to be right: one that
// somebody changed must not keep a boot busy. cryptsetup's own defaults stay
// below all of them.
const (
	maxIterations = 20_000_000
	maxTime       = 64
	maxMemory     = 4 << 20 // KiB
	maxCPUs       = 64
)

// Unseal returns the volume key that key opens in a keyslot. A key that does not
// is [ErrWrongKey], and so is an area that was overwritten, which nothing tells
// from it. The keyslot's area is read now; the digest validated before decides
// whether what came out is the volume key.
//
// A keyslot that luks.go does not know, or that costs too much, is another
// error; luks.go is not asked then.
func (v *Volume) Unseal(slot int, key secret.Bytes) (secret.Bytes, error) {
	k, exists := v.keyslots[id(slot)]
	if !exists || !v.opens(slot) {
		return secret.Bytes{}, fmt.Errorf("unsealing keyslot %d: there is no such keyslot for the volume's key", slot)
	}
	if err := k.openable(); err != nil {
		return secret.Bytes{}, fmt.Errorf("unsealing keyslot %d: %w", slot, err)
	}
	volumeKey, err := v.unseal(slot, key)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("unsealing keyslot %d: %w", slot, err)
	}
	if err := v.confirm(volumeKey); err != nil {
		volumeKey.Wipe()
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

// openable says why luks.go cannot, or must not, be asked to open the keyslot.
func (k *keyslot) openable() error {
	_, splitterKnown := hashByName(k.AF.Hash)
	switch kdf := k.KDF; {
	case kdf.Iterations > maxIterations || kdf.Time > maxTime || kdf.Memory > maxMemory || kdf.CPUs > maxCPUs:
		return fmt.Errorf("%s costs too much: iterations %d, time %d, memory %d KiB, cpus %d", kdf.Type, kdf.Iterations, kdf.Time, kdf.Memory, kdf.CPUs)
	case kdf.Type == "pbkdf2" && kdf.Hash != "sha256" && kdf.Hash != "sha512":
		return fmt.Errorf("hash %q of %s is not supported, use sha256 or sha512", kdf.Hash, kdf.Type)
	case !splitterKnown:
		return fmt.Errorf("splitter hash %q is not supported", k.AF.Hash)
	case k.Area.Encryption != cipherSpec || !cipherKeySize(k.Area.KeySize):
		return fmt.Errorf("area cipher %q with %d bytes of key is not supported", k.Area.Encryption, k.Area.KeySize)
	}
	return nil
}

// unseal lets luks.go open a keyslot in a memory copy of what was validated.
func (v *Volume) unseal(slot int, key secret.Bytes) (secret.Bytes, error) {
	k := v.keyslots[id(slot)]
	area := make([]byte, k.KeySize*stripes)
	if _, err := v.header.source.ReadAt(area, int64(k.Area.Offset)); err != nil {
		return secret.Bytes{}, fmt.Errorf("reading the keyslot's area: %w", err)
	}
	device, err := v.openCopy(area, uint64(k.Area.Offset))
	if err != nil {
		return secret.Bytes{}, err
	}
	defer device.Close()
	opened, err := device.UnsealVolume(slot, key.Expose())
	if errors.Is(err, luksgo.ErrPassphraseDoesNotMatch) {
		return secret.Bytes{}, ErrWrongKey
	}
	if err != nil {
		return secret.Bytes{}, err
	}
	return volumeKeyOf(opened)
}

// volumeKeyOf takes over the volume key that luks.go keeps in an unexported field
// and itself hands only to a device-mapper table, in the clear. The secret is the
// very slice of that field: to wipe it is to wipe luks.go's key.
func volumeKeyOf(opened *luksgo.Volume) (secret.Bytes, error) {
	field := reflect.ValueOf(opened).Elem().FieldByName("key")
	if !field.IsValid() || field.Type() != reflect.TypeFor[[]byte]() {
		return secret.Bytes{}, errors.New("this version of luks.go does not keep the volume key as []byte in Volume.key")
	}
	return secret.New(field.Bytes()), nil
}
