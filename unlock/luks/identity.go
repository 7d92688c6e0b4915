package luks

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// identityFormat stands in every identity, so that no other document has the
// same digest.
const identityFormat = "keywright/luks-identity/v1"

// Identity is what makes a volume this volume: all that decides how the data is
// decrypted and which key is the right one. Keyslots, tokens, configuration and
// sequence number are not in it, so adding a keyslot does not move it. See
// docs/formats/luks-identity.md.
type Identity struct {
	Digests      map[string]IdentityDigest  `json:"digests"`
	Format       string                     `json:"format"`
	Requirements []string                   `json:"requirements"`
	Segments     map[string]IdentitySegment `json:"segments"`
	UUID         string                     `json:"uuid"`
}

// IdentityDigest is the segment's digest without the keyslots that it names.
type IdentityDigest struct {
	Digest     string   `json:"digest"` // base64
	Hash       string   `json:"hash"`
	Iterations uint32   `json:"iterations"`
	Salt       string   `json:"salt"` // base64
	Segments   []string `json:"segments"`
	Type       string   `json:"type"`
}

// IdentitySegment is the one data segment. 64-bit numbers are decimal strings,
// as in the header.
type IdentitySegment struct {
	Encryption string `json:"encryption"`
	IVTweak    string `json:"iv_tweak"`
	Offset     string `json:"offset"`
	SectorSize uint32 `json:"sector_size"`
	Size       string `json:"size"` // "dynamic" or bytes
	Type       string `json:"type"`
}

// Identity returns the volume's identity.
func (v *Volume) Identity() Identity {
	i := Identity{
		Format: identityFormat, UUID: v.header.UUID, Requirements: []string{},
		Segments: map[string]IdentitySegment{text(v.segmentID): {
			Type: v.segment.Type, Encryption: v.segment.Encryption, SectorSize: v.segment.SectorSize,
			Offset: text(v.segment.Offset), Size: v.segment.Size, IVTweak: text(*v.segment.IVTweak),
		}},
		Digests: make(map[string]IdentityDigest, len(v.digests)),
	}
	for number, d := range v.digests {
		if len(d.Segments) == 0 {
			continue // it confirms no key that decrypts anything
		}
		segments := make([]string, 0, 1)
		for _, s := range d.Segments {
			segments = append(segments, text(s))
		}
		slices.Sort(segments)
		i.Digests[text(number)] = IdentityDigest{
			Type: d.Type, Hash: d.Hash, Iterations: d.Iterations,
			Salt: text(d.Salt), Digest: text(d.Digest), Segments: segments,
		}
	}
	return i
}

// Canonical returns the identity as canonical JSON (RFC 8785).
func (i Identity) Canonical() ([]byte, error) {
	b, err := json.Marshal(i)
	if err != nil {
		return nil, fmt.Errorf("encoding the identity: %w", err)
	}
	value := jsontext.Value(b)
	if err := value.Canonicalize(); err != nil {
		return nil, fmt.Errorf("encoding the identity: %w", err)
	}
	return value, nil
}

// Digest returns the identity digest: SHA-256 over [Identity.Canonical].
func (i Identity) Digest() ([sha256.Size]byte, error) {
	b, err := i.Canonical()
	return sha256.Sum256(b), err
}

// VolumeKeyDigest returns the header's own digest of the volume key, in lower
// case hex. Two volumes that show the same one are copies of each other: the
// salt is random.
func (v *Volume) VolumeKeyDigest() string {
	return hex.EncodeToString(v.digests[v.digestID].Digest)
}

// text returns the text form of one of this package's JSON types, whose
// MarshalText never fails.
func text(value interface{ MarshalText() ([]byte, error) }) string {
	b, _ := value.MarshalText()
	return string(b)
}
