package luks

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
)

// Under is a validated header under reencryption. The cryptsetup program opens the
// volume, and recovers it where it was cut; what it may make of it is what [Under]
// says.
//
// A forged one would have cryptsetup write data in the clear (CVE-2021-4122). So it
// is what cryptsetup 2.4.3 and later make, whose metadata is confirmed by both volume
// keys, of a plain volume that becomes a plain volume, in which every part is
// encrypted.
type Under struct {
	header *Header
	// plain has what a header under reencryption has as any other.
	plain *Volume
	// before and after are the segment and digest of the volume as a whole.
	before, after whole
	parts         []part
}

// whole is the volume under one volume key.
type whole struct {
	segment segment
	digest  id
}

// part is a data segment.
type part struct {
	segment
	under []id // digests: two while it is being worked on
}

// The flags of segments under reencryption.
const (
	flagWorked   = "in-reencryption"
	flagPrevious = "backup-previous"
	flagFinal    = "backup-final"
)

// requirement is that of a header whose reencryption is confirmed by the volume keys.
const requirement = "online-reencrypt-v2"

// ValidateUnder refuses whatever is not a reencryption as [Under] wants it, with a
// [*Refusal].
func (h *Header) ValidateUnder() (*Under, error) {
	u := &Under{header: h, plain: &Volume{header: h}}
	for _, check := range []func() *Refusal{
		u.checkRequirement, u.plain.checkSizes, u.checkKeyslots, u.plain.checkDigests, u.checkSegments, u.checkParts, u.plain.checkTokens,
	} {
		if refusal := check(); refusal != nil {
			return nil, refusal
		}
	}
	return u, nil
}

func (u *Under) checkRequirement() *Refusal {
	if names := u.header.metadata.Config.Requirements.names(); !slices.Equal(names, []string{requirement}) {
		return refuse(CodeRequirements, "%q, want %q alone: cryptsetup 2.4.3 or later makes it", names, requirement)
	}
	return nil
}

// reencryptSlot is the keyslot that says how a reencryption goes on.
type reencryptSlot struct {
	Type      string         `json:"type"`
	Mode      string         `json:"mode"`
	Direction string         `json:"direction"`
	KeySize   uint32         `json:"key_size"`
	Priority  *int           `json:"priority"`
	Area      jsontext.Value `json:"area"`
}

// checkKeyslots sets the one of the reencryption apart; the others are as ever.
func (u *Under) checkKeyslots() (refusal *Refusal) {
	plain := make(map[id]jsontext.Value)
	found := 0
	for number, value := range u.header.metadata.Keyslots {
		var r reencryptSlot
		if err := lenient(value, &r); err != nil {
			return refuse(CodeJSONShape, "keyslot %d: %v", number, err)
		}
		if r.Type != "reencrypt" {
			plain[number] = value
			continue
		}
		if found++; r.Mode != "reencrypt" || r.Direction != "forward" {
			return refuse(CodeReencryption, "keyslot %d: mode %q, direction %q", number, r.Mode, r.Direction)
		}
	}
	if found != 1 {
		return refuse(CodeReencryption, "%d keyslots of a reencryption, want one", found)
	}
	u.plain.keyslots, refusal = decodeAll(plain, "luks2", CodeKeyslotType, (*keyslot).check)
	if refusal != nil {
		return refusal
	}
	return u.plain.checkAreas()
}

func (u *Under) checkSegments() *Refusal {
	segments, refusal := decodeAll(u.header.metadata.Segments, "crypt", CodeSegmentType, (*segment).checkUnder)
	if refusal != nil {
		return refusal
	}
	for _, number := range slices.Sorted(maps.Keys(segments)) {
		s := segments[number]
		flag := append(s.Flags, "")[0]
		s.Flags = nil
		named := u.digestsOf(number)
		switch {
		case (flag == flagPrevious || flag == flagFinal) && len(named) != 1:
			return refuse(CodeDigestBinding, "segment %d is named by %d digests, want one", number, len(named))
		case flag == flagPrevious:
			refusal = u.before.set(s, named[0])
		case flag == flagFinal:
			refusal = u.after.set(s, named[0])
		default:
			u.parts = append(u.parts, part{s, named})
		}
		if refusal != nil {
			return refusal
		}
	}
	return nil
}

// checkUnder is [segment.check] of one that may have a flag.
func (s *segment) checkUnder(number id) *Refusal {
	plain := *s
	plain.Flags = nil
	if len(s.Flags) > 1 || len(s.Flags) == 1 && !slices.Contains([]string{flagWorked, flagPrevious, flagFinal}, s.Flags[0]) {
		return refuse(CodeSegmentFlags, "%q", s.Flags)
	}
	return plain.check(number)
}

func (w *whole) set(s segment, digest id) *Refusal {
	if w.segment.Type != "" {
		return refuse(CodeSegmentFlags, "two segments say what the volume was, or becomes")
	}
	w.segment, w.digest = s, digest
	return nil
}

// digestsOf returns the digests that name a segment.
func (u *Under) digestsOf(number id) (named []id) {
	for _, d := range slices.Sorted(maps.Keys(u.plain.digests)) {
		if slices.Contains(u.plain.digests[d].Segments, number) {
			named = append(named, d)
		}
	}
	return named
}

// checkParts demands that the parts are the volume, each under the key from before or
// the one from after, which differ in nothing but the key.
func (u *Under) checkParts() *Refusal {
	b, a := u.before.segment, u.after.segment
	switch {
	case b.Type == "" || a.Type == "" || u.before.digest == u.after.digest || len(u.plain.digests) > 3:
		return refuse(CodeReencryption, "the header does not say what the volume was and what it becomes")
	case b.Encryption != a.Encryption || b.SectorSize != a.SectorSize || b.Offset != a.Offset || b.Size != a.Size || *b.IVTweak != *a.IVTweak:
		return refuse(CodeReencryption, "more than the key of the segment becomes another")
	case len(u.parts) == 0 || len(u.parts) > 3:
		return refuse(CodeSegmentCount, "%d segments of data, want 1 to 3", len(u.parts))
	}
	whole := &Volume{header: u.header, segment: b}
	if refusal := whole.checkRange(); refusal != nil {
		return refusal
	}
	u.plain.segment, u.plain.length = b, whole.length
	return u.checkPlaces()
}

func (u *Under) checkPlaces() *Refusal {
	b := u.before.segment
	place := uint64(0) // from the beginning of the data
	for i, p := range u.parts {
		last := i == len(u.parts)-1
		length, err := u.lengthOf(p, place)
		switch {
		case err != nil || p.Encryption != b.Encryption || p.SectorSize != b.SectorSize,
			uint64(p.Offset) != uint64(b.Offset)+place || uint64(*p.IVTweak) != uint64(*b.IVTweak)+place/tableSectorSize,
			length == 0 || length%uint64(b.SectorSize) != 0 || length > u.plain.length-place, last != (place+length == u.plain.length):
			return refuse(CodeSegmentRange, "part %d of the data does not follow from those before", i)
		case len(p.under) == 0 || slices.ContainsFunc(p.under, func(d id) bool { return d != u.before.digest && d != u.after.digest }):
			return refuse(CodeDigestBinding, "part %d of the data is under neither volume key", i)
		}
		place += length
	}
	return nil
}

// lengthOf returns how long a part is that begins at a place.
func (u *Under) lengthOf(p part, place uint64) (uint64, error) {
	if p.Size == "dynamic" {
		return u.plain.length - place, nil
	}
	return fixedSize(p.Size)
}

// Header returns what it was read from.
func (u *Under) Header() *Header { return u.header }

// From returns the identity that the volume had, and To the one that it will have.
func (u *Under) From() Identity { return u.identity(u.before) }

// To is as [Under.From] says.
func (u *Under) To() Identity { return u.identity(u.after) }

// identity is that of a header with one segment, which cryptsetup numbers 0.
func (u *Under) identity(w whole) Identity {
	d := u.plain.digests[w.digest]
	d.Segments = []id{0}
	plain := Volume{header: u.header, segment: w.segment, digests: map[id]digest{w.digest: d}}
	return plain.Identity()
}

// OwnTokens returns the readable tokens of ours in ascending order. The keyslots that
// they name hold either volume key.
func (u *Under) OwnTokens() (own []OwnToken) {
	for _, number := range slices.Sorted(maps.Keys(u.plain.tokens)) {
		if u.plain.tokens[number].Type != TokenType {
			continue
		}
		if t, err := decodeToken(u.header.metadata.Tokens[number]); err == nil {
			own = append(own, OwnToken{ID: int(number), Token: t})
		}
	}
	return own
}

// All tells whether all data is under the new volume key. Then nothing but the header
// is left to end, by [Under.Ended] and never by cryptsetup: 2.6.1 takes such a header for
// one of which nothing is done, and reencrypts the data a second time; or, once it has
// killed the keyslots of the old volume key, does nothing for want of that.
func (u *Under) All() bool {
	return len(u.parts) == 1 && slices.Equal(u.parts[0].under, []id{u.after.digest})
}

// Ready is [Volume.Ready].
func (u *Under) Ready(ctx context.Context, name string) error { return u.plain.Ready(ctx, name) }

// Check is [Volume.Check]: cryptsetup makes one target for each part.
func (u *Under) Check(t Table) error {
	device, err := u.plain.deviceNumber()
	if err != nil {
		return fmt.Errorf("checking mapping %s: %w", t.Name, err)
	}
	slots := u.plain.digests[u.after.digest].Keyslots
	if len(slots) == 0 {
		return fmt.Errorf("checking mapping %s: the header has no keyslot that states a key size", t.Name)
	}
	want := u.expected(device, &t, int(u.plain.keyslots[slots[0]].KeySize))
	if err := want.same(t); err != nil {
		return err
	}
	for i, w := range want.Rest {
		if got := t.Rest[i]; w.Start != got.Start || w.IVTweak != got.IVTweak || w.Offset != got.Offset {
			return fmt.Errorf("mapping %s is not what its header says: part %d is %+v, want %+v", t.Name, i+2, got, w)
		}
	}
	return nil
}

// expected returns the table that the parts ask for; of what is not judged, that of
// the mapping.
func (u *Under) expected(device string, t *Table, keySize int) Table {
	first := u.parts[0]
	want := Table{
		Name: t.Name, UUID: mappingUUID(u.header.UUID, t.Name), Length: u.plain.length,
		Cipher: first.Encryption, KeySize: keySize, KeyDescription: t.KeyDescription, IVTweak: uint64(*first.IVTweak),
		Device: device, Offset: uint64(first.Offset), SectorSize: first.SectorSize, ReadOnly: t.ReadOnly, Flags: t.Flags,
	}
	for _, p := range u.parts[1:] {
		want.Rest = append(want.Rest, Target{Start: uint64(p.Offset - first.Offset), IVTweak: uint64(*p.IVTweak), Offset: uint64(p.Offset)})
	}
	return want
}
