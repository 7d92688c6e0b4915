package luks

import (
	"cmp"
	"maps"
	"regexp"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
)

// stripes is the one number of anti-forensic stripes that LUKS knows.
const stripes = 4000

// Salts: LUKS writes 32 bytes; digests of volumes converted from LUKS1 have 20.
const (
	minSalt   = 16
	maxSalt   = 64
	minDigest = 20
)

// hashForm is what a hash name may look like. Whether a keyslot's hash is known
// is asked when that keyslot is opened, so that a slot that a person added does
// not keep the machine from booting with ours.
var hashForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{1,31}$`)

func (v *Volume) checkKeyslots() (refusal *Refusal) {
	v.keyslots, refusal = decodeAll(v.header.metadata.Keyslots, "luks2", CodeKeyslotType, (*keyslot).check)
	if refusal != nil {
		return refusal
	}
	return v.checkAreas()
}

// decodeAll decodes objects that must be of one type, and checks each.
func decodeAll[T any](values map[id]jsontext.Value, kind string, code Code, check func(*T, id) *Refusal) (map[id]T, *Refusal) {
	decoded := make(map[id]T, len(values))
	for number, value := range values {
		var head struct {
			Type string `json:"type"`
		}
		if err := lenient(value, &head); err != nil {
			return nil, refuse(CodeJSONShape, "number %d: %v", number, err)
		}
		if head.Type != kind {
			return nil, refuse(code, "number %d is %q, want %s", number, head.Type, kind)
		}
		var object T
		if err := strictly(value, &object); err != nil {
			return nil, refuse(CodeJSONShape, "%s %d: %v", kind, number, err)
		}
		if refusal := check(&object, number); refusal != nil {
			return nil, refusal
		}
		decoded[number] = object
	}
	return decoded, nil
}

func (k *keyslot) check(number id) *Refusal {
	switch {
	case k.Priority != nil && (*k.Priority < 0 || *k.Priority > 2):
		return refuse(CodeKeyslotShape, "keyslot %d: priority %d", number, *k.Priority)
	case k.AF.Type != "luks1" || k.AF.Stripes != stripes || !hashForm.MatchString(k.AF.Hash):
		return refuse(CodeKeyslotShape, "keyslot %d: splitter %+v", number, k.AF)
	case !k.KDF.complete():
		return refuse(CodeKeyslotKDF, "keyslot %d: %q", number, k.KDF.Type)
	case k.KeySize == 0 || k.KeySize > 512:
		return refuse(CodeKeyslotKeySize, "keyslot %d: %d bytes", number, k.KeySize)
	case k.Area.Type != "raw" || k.Area.Encryption == "" || k.Area.KeySize == 0 || k.Area.KeySize > 512:
		return refuse(CodeKeyslotArea, "keyslot %d: %+v", number, k.Area)
	}
	return nil
}

// complete reports whether the kdf is known and has the parameters of its type
// and no others.
func (k *kdf) complete() bool {
	if len(k.Salt) < minSalt || len(k.Salt) > maxSalt {
		return false
	}
	switch k.Type {
	case "pbkdf2":
		return hashForm.MatchString(k.Hash) && k.Iterations > 0 && k.Time|k.Memory|k.CPUs == 0
	case "argon2i", "argon2id":
		return k.Time > 0 && k.Memory > 0 && k.CPUs > 0 && k.CPUs < 256 && k.Iterations == 0 && k.Hash == ""
	default:
		return false
	}
}

// checkAreas demands that every area is large enough, stands in the keyslots
// area, and overlaps no other.
func (v *Volume) checkAreas() *Refusal {
	start, end := v.keyslotsArea()
	free := start
	for _, number := range v.slotsByOffset() {
		k := v.keyslots[number]
		offset, size := uint64(k.Area.Offset), uint64(k.Area.Size)
		switch {
		case offset%areaAlignment != 0 || size%areaAlignment != 0:
			return refuse(CodeKeyslotArea, "keyslot %d: area of %d bytes at %d is not aligned", number, size, offset)
		case offset < start || offset > end || size > end-offset:
			return refuse(CodeKeyslotArea, "keyslot %d: area of %d bytes at %d is outside %d-%d", number, size, offset, start, end)
		case offset < free:
			return refuse(CodeKeyslotArea, "keyslot %d: area at %d overlaps another", number, offset)
		case size < uint64(k.KeySize)*stripes:
			return refuse(CodeKeyslotArea, "keyslot %d: area of %d bytes is too small", number, size)
		}
		free = offset + size
	}
	return nil
}

func (v *Volume) slotsByOffset() []id {
	return slices.SortedFunc(maps.Keys(v.keyslots), func(a, b id) int {
		return cmp.Compare(v.keyslots[a].Area.Offset, v.keyslots[b].Area.Offset)
	})
}

func (v *Volume) checkDigests() (refusal *Refusal) {
	v.digests, refusal = decodeAll(v.header.metadata.Digests, "pbkdf2", CodeDigestType, (*digest).check)
	return refusal
}

// check demands a digest that a wrong key cannot match by being compared with
// nothing.
func (d *digest) check(number id) *Refusal {
	if d.Hash == "" || d.Iterations == 0 || len(d.Salt) == 0 || len(d.Digest) == 0 {
		return refuse(CodeDigestEmpty, "digest %d lacks hash, iterations, salt or value", number)
	}
	newHash, known := hashByName(d.Hash)
	if !known {
		return refuse(CodeDigestHash, "digest %d: %q", number, d.Hash)
	}
	if d.Iterations > maxIterations {
		return refuse(CodeDigestCost, "digest %d: %d iterations", number, d.Iterations)
	}
	if len(d.Salt) < minSalt || len(d.Salt) > maxSalt || len(d.Digest) < minDigest || len(d.Digest) > newHash().Size() {
		return refuse(CodeDigestEmpty, "digest %d: salt of %d bytes, value of %d bytes", number, len(d.Salt), len(d.Digest))
	}
	return nil
}

// checkBinding demands that exactly one digest confirms the segment's key, and
// that no keyslot is confirmed by two.
func (v *Volume) checkBinding() *Refusal {
	owner := make(map[id]id)
	bound := 0
	for number, d := range v.digests {
		if !unique(d.Keyslots) || !unique(d.Segments) {
			return refuse(CodeDigestBinding, "digest %d names something twice", number)
		}
		for _, slot := range d.Keyslots {
			_, exists := v.keyslots[slot]
			_, taken := owner[slot]
			if !exists || taken {
				return refuse(CodeDigestBinding, "digest %d names keyslot %d (exists: %t, in another digest: %t)", number, slot, exists, taken)
			}
			owner[slot] = number
		}
		if len(d.Segments) == 0 {
			continue
		}
		if d.Segments[0] != v.segmentID || len(d.Segments) > 1 {
			return refuse(CodeDigestBinding, "digest %d names segments that do not exist", number)
		}
		bound++
		v.digestID = number
	}
	if bound != 1 {
		return refuse(CodeDigestBinding, "the segment is named by %d digests, want one", bound)
	}
	return v.checkKeySizes()
}

// checkKeySizes demands that every keyslot of the segment's key holds a key that
// its cipher takes.
func (v *Volume) checkKeySizes() *Refusal {
	slots := v.digests[v.digestID].Keyslots
	for _, slot := range slots {
		size := v.keyslots[slot].KeySize
		if !cipherKeySize(size) || size != v.keyslots[slots[0]].KeySize {
			return refuse(CodeKeyslotKeySize, "keyslot %d: %d bytes", slot, size)
		}
	}
	return nil
}
