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
// somebody changed must not keep a boot busy, nor take its memory.
const (
	// maxIterations is of the digest, which cryptsetup sets by the speed of the
	// machine.
	maxIterations = 20_000_000
	// maxSlotIterations is of a keyslot that is opened here: one of ours, which
	// enrolment gives 1000, for its secret is random.
	maxSlotIterations = 100_000
)

// Unseal returns the volume key that key opens in a keyslot. A key that does not
// is [ErrWrongKey], and so is an area that was overwritten, which nothing tells
// from it. The keyslot's area is read now; the digest validated before decides
// whether what came out is the volume key.
//
// A keyslot that is not [Volume.Openable] is another error; luks.go is not asked
// then.
func (v *Volume) Unseal(slot int, key secret.Bytes) (secret.Bytes, error) {
	if err := v.Openable(slot); err != nil {
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

// Openable refuses a keyslot that is not as enrolment makes them: bound to the
// volume's key, cheap, and of a form that luks.go knows. Other keyslots, such as
// a person's, are for the cryptsetup program. Its error is a [*Refusal].
func (v *Volume) Openable(slot int) error {
	k, exists := v.keyslots[id(slot)]
	if !exists || !v.opens(slot) {
		return refuse(CodeKeyslotForeign, "there is no keyslot %d for the volume's key", slot)
	}
	if reason := k.foreign(); reason != "" {
		return refuse(CodeKeyslotForeign, "keyslot %d: %s", slot, reason)
	}
	return nil
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

// foreign says why luks.go cannot, or must not, be asked to open the keyslot.
func (k *keyslot) foreign() string {
	_, splitterKnown := hashByName(k.AF.Hash)
	switch kdf := k.KDF; {
	case kdf.Type != "pbkdf2" || kdf.Iterations > maxSlotIterations:
		return fmt.Sprintf("its %s costs more than pbkdf2 with %d iterations; cryptsetup luksConvertKey changes it", kdf.Type, maxSlotIterations)
	case kdf.Hash != "sha256" && kdf.Hash != "sha512":
		return fmt.Sprintf("hash %q of %s is not supported, use sha256 or sha512", kdf.Hash, kdf.Type)
	case !splitterKnown:
		return fmt.Sprintf("splitter hash %q is not supported", k.AF.Hash)
	case k.Area.Encryption != cipherSpec || !cipherKeySize(k.Area.KeySize):
		return fmt.Sprintf("area cipher %q with %d bytes of key is not supported", k.Area.Encryption, k.Area.KeySize)
	}
	return ""
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
