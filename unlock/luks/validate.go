package luks

import (
	"math"
	"slices"
	"strings"
)

// The one cipher that is opened, and the key sizes that it takes: AES-128 and
// AES-256, each twice.
const cipherSpec = "aes-xts-plain64"

func cipherKeySize(n uint32) bool { return n == 32 || n == 64 }

// Limits of the keyslots area (specification, section 2).
const (
	areaAlignment   = 4096
	maxKeyslotsSize = 128 << 20
)

// persistentFlags are the header's activation flags that are understood, with
// the name that the kernel has for them.
func persistentFlags() map[string]string {
	return map[string]string{
		"allow-discards":         "allow_discards",
		"same-cpu-crypt":         "same_cpu_crypt",
		"submit-from-crypt-cpus": "submit_from_crypt_cpus",
		"no-read-workqueue":      "no_read_workqueue",
		"no-write-workqueue":     "no_write_workqueue",
	}
}

// Volume is a validated header: the only form in which a volume is opened.
type Volume struct {
	header    *Header
	segmentID id
	segment   segment
	length    uint64 // of the opened volume, in bytes
	keyslots  map[id]keyslot
	digests   map[id]digest
	digestID  id // the digest of the segment's key
	tokens    map[id]tokenObject
}

// Header returns what the volume was read from.
func (v *Volume) Header() *Header { return v.header }

// Validate refuses whatever the package does not open, with a [*Refusal].
func (h *Header) Validate() (*Volume, error) {
	v := &Volume{header: h}
	for _, check := range []func() *Refusal{
		v.checkConfig, v.checkSegment, v.checkKeyslots, v.checkDigests, v.checkBinding, v.checkTokens,
	} {
		if refusal := check(); refusal != nil {
			return nil, refusal
		}
	}
	return v, nil
}

func (v *Volume) checkConfig() *Refusal {
	c := v.header.metadata.Config
	if c.Requirements != nil {
		// cryptsetup removes the member with the last requirement; luks.go knows
		// it in no form.
		return refuse(CodeRequirements, "%q", c.Requirements.names())
	}
	return v.checkSizes()
}

func (v *Volume) checkSizes() *Refusal {
	c := v.header.metadata.Config
	if size := v.header.chosen.size; uint64(c.JSONSize) != size-binarySize {
		return refuse(CodeConfig, "json_size %d in a header of %d bytes", c.JSONSize, size)
	}
	if c.KeyslotsSize%areaAlignment != 0 || c.KeyslotsSize > maxKeyslotsSize {
		return refuse(CodeConfig, "keyslots_size %d", c.KeyslotsSize)
	}
	for _, flag := range c.Flags {
		if _, known := persistentFlags()[flag]; !known {
			return refuse(CodeConfigFlags, "%q", flag)
		}
	}
	return nil
}

// keyslotsArea returns where keyslots may stand: behind both copies.
func (v *Volume) keyslotsArea() (start, end uint64) {
	start = 2 * v.header.chosen.size
	return start, start + uint64(v.header.metadata.Config.KeyslotsSize)
}

func (v *Volume) checkSegment() *Refusal {
	segments := v.header.metadata.Segments
	if len(segments) != 1 {
		return refuse(CodeSegmentCount, "%d segments, want one", len(segments))
	}
	decoded, refusal := decodeAll(segments, "crypt", CodeSegmentType, (*segment).check)
	if refusal != nil {
		return refusal
	}
	for number, s := range decoded {
		v.segmentID, v.segment = number, s
	}
	return v.checkRange()
}

func (s *segment) check(id) *Refusal {
	switch {
	case len(s.Flags) > 0:
		return refuse(CodeSegmentFlags, "%q", s.Flags)
	case len(s.Integrity) > 0:
		return refuse(CodeSegmentIntegrity, "%s", s.Integrity)
	case nullCipher(s.Encryption):
		return refuse(CodeSegmentNullCipher, "%q", s.Encryption)
	case s.Encryption != cipherSpec:
		return refuse(CodeSegmentCipher, "%q, want %s", s.Encryption, cipherSpec)
	case !slices.Contains([]uint32{512, 1024, 2048, 4096}, s.SectorSize):
		return refuse(CodeSegmentSectorSize, "%d", s.SectorSize)
	case s.IVTweak == nil:
		return refuse(CodeJSONShape, "the segment has no iv_tweak")
	case *s.IVTweak > math.MaxInt64:
		return refuse(CodeSegmentRange, "iv_tweak %d", *s.IVTweak)
	}
	return nil
}

// nullCipher names every spelling that dm-crypt passes to the kernel's null cipher.
func nullCipher(encryption string) bool {
	return encryption == "" || encryption == "null" || strings.HasPrefix(encryption, "cipher_null")
}

// Length returns the size of the opened volume, in bytes.
func (v *Volume) Length() uint64 { return v.length }

// checkRange demands that the segment stands behind the header and on the
// device, and sets its length.
func (v *Volume) checkRange() *Refusal {
	offset, sector, device := uint64(v.segment.Offset), uint64(v.segment.SectorSize), v.header.deviceSize
	_, headerEnd := v.keyslotsArea()
	switch {
	case offset < headerEnd:
		return refuse(CodeSegmentRange, "offset %d is inside the header, which ends at %d", offset, headerEnd)
	case offset%sector != 0:
		return refuse(CodeSegmentRange, "offset %d is no multiple of the sector size %d", offset, sector)
	case offset >= device || device-offset < sector:
		return refuse(CodeSegmentRange, "offset %d leaves no room on a device of %d bytes", offset, device)
	}
	v.length = (device - offset) / sector * sector
	if v.segment.Size == "dynamic" {
		return nil
	}
	fixed, err := fixedSize(v.segment.Size)
	if err != nil || fixed == 0 || fixed%sector != 0 || fixed > v.length {
		return refuse(CodeSegmentRange, "size %q at offset %d on a device of %d bytes", v.segment.Size, offset, device)
	}
	v.length = fixed
	return nil
}

func fixedSize(text string) (uint64, error) {
	var n decimal
	err := n.UnmarshalText([]byte(text))
	return uint64(n), err
}

func (v *Volume) checkTokens() *Refusal {
	v.tokens = make(map[id]tokenObject)
	for number, value := range v.header.metadata.Tokens {
		var t tokenObject
		if err := lenient(value, &t); err != nil {
			return refuse(CodeJSONShape, "token %d: %v", number, err)
		}
		if t.Type == "" || !unique(t.Keyslots) {
			return refuse(CodeJSONShape, "token %d has no type or names a keyslot twice", number)
		}
		for _, slot := range t.Keyslots {
			if _, exists := v.keyslots[slot]; !exists {
				return refuse(CodeTokenKeyslots, "token %d names keyslot %d, which does not exist", number, slot)
			}
		}
		v.tokens[number] = t
	}
	return nil
}
