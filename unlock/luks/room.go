package luks

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
)

// ErrFull is returned when all keyslots or all tokens are taken.
var ErrFull = errors.New("no free number is left")

// FreeSlot returns the lowest keyslot that neither exists nor is intended by an
// unassigned token of ours.
func (v *Volume) FreeSlot() (int, error) {
	return first(false, v.slotTaken())
}

// LastFreeSlot is [Volume.FreeSlot] from the other end. Programs that add a
// keyslot take the lowest one, so that none but us takes the highest.
func (v *Volume) LastFreeSlot() (int, error) {
	return first(true, v.slotTaken())
}

func (v *Volume) slotTaken() func(int) bool {
	intended := make(map[int]bool)
	for _, t := range v.OwnTokens() {
		if len(t.Keyslots) == 0 {
			intended[t.Slot] = true
		}
	}
	return func(n int) bool { _, exists := v.keyslots[id(n)]; return exists || intended[n] }
}

// FreeToken returns the lowest token number that is free.
func (v *Volume) FreeToken() (int, error) {
	return first(false, func(n int) bool { _, exists := v.tokens[id(n)]; return exists })
}

func first(fromLast bool, taken func(int) bool) (int, error) {
	for n := range maxSlots {
		if fromLast {
			n = maxSlots - 1 - n
		}
		if !taken(n) {
			return n, nil
		}
	}
	return 0, ErrFull
}

// ErrNoRoom is returned when the keyslots area has no gap for another keyslot.
var ErrNoRoom = errors.New("the keyslots area of the header has no room for another keyslot")

// Room is [ErrNoRoom] where cryptsetup would find no place for another keyslot of
// the volume's key.
func (v *Volume) Room() error {
	bound := v.digests[v.digestID].Keyslots
	if len(bound) == 0 {
		return fmt.Errorf("%w: none holds the volume's key", ErrNoRoom)
	}
	need := uint64(v.keyslots[bound[0]].KeySize) * stripes
	need = (need + areaAlignment - 1) / areaAlignment * areaAlignment
	free, end := v.keyslotsArea()
	for _, number := range v.slotsByOffset() {
		area := v.keyslots[number].Area
		if uint64(area.Offset)-free >= need {
			return nil
		}
		free = uint64(area.Offset + area.Size)
	}
	if end-free < need {
		return fmt.Errorf("%w, which takes %d bytes", ErrNoRoom, need)
	}
	return nil
}

// MadeAsOurs tells whether a keyslot looks as enrolment makes them. Together with
// a token of ours that announces the number, it tells a keyslot of ours whose key
// is lost; by itself it tells nothing.
func (v *Volume) MadeAsOurs(slot int) bool {
	k, exists := v.keyslots[id(slot)]
	named := func(t tokenObject) bool { return slices.Contains(t.Keyslots, id(slot)) }
	for _, t := range v.tokens {
		if named(t) {
			return false
		}
	}
	return exists && v.opens(slot) && k.cheap()
}

// Leftover returns the keyslots for another volume key that a reencryption left
// which was cut before it began: those that look as we make them and that no token
// but ours names.
func (v *Volume) Leftover() []int {
	var left []int
	for _, number := range slices.Sorted(maps.Keys(v.keyslots)) {
		k := v.keyslots[number]
		if !v.opens(int(number)) && k.cheap() && !v.namedByOthers(number) {
			left = append(left, int(number))
		}
	}
	return left
}

func (v *Volume) namedByOthers(number id) bool {
	for _, t := range v.tokens {
		if t.Type != TokenType && slices.Contains(t.Keyslots, number) {
			return true
		}
	}
	return false
}

// cheap tells whether the keyslot costs what cryptsetup gives none by itself.
func (k *keyslot) cheap() bool {
	return k.KDF.Type == "pbkdf2" && k.KDF.Iterations == minIterations && k.foreign() == ""
}

// HeaderCopy reads the header that stands before the data, both copies and the
// keyslots in use, with zeros in the place of all else: cryptsetup luksHeaderRestore
// takes it. Whoever has it and a key of that time opens the volume.
func (v *Volume) HeaderCopy() io.Reader {
	at, end := v.keyslotsArea()
	parts := []io.Reader{io.NewSectionReader(v.header.source, 0, int64(at))}
	slots := slices.SortedFunc(maps.Values(v.keyslots), func(a, b keyslot) int { return cmp.Compare(a.Area.Offset, b.Area.Offset) })
	for _, k := range slots {
		from, size := uint64(k.Area.Offset), uint64(k.Area.Size)
		parts = append(parts, zeros(from-at), io.NewSectionReader(v.header.source, int64(from), int64(size)))
		at = from + size
	}
	return io.MultiReader(append(parts, zeros(end-at))...)
}

// zeros reads as so many bytes.
func zeros(n uint64) io.Reader { return io.LimitReader(zeroReader{}, int64(n)) }

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
