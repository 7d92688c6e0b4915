package luks

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"
)

// metadata is the JSON area (specification, section 3). Keyslots, segments and
// digests stay text until [Header.Validate] has looked at their type, so that a
// header under reencryption can be told from a broken one.
type metadata struct {
	Keyslots map[id]jsontext.Value `json:"keyslots"`
	Tokens   map[id]jsontext.Value `json:"tokens"`
	Segments map[id]jsontext.Value `json:"segments"`
	Digests  map[id]jsontext.Value `json:"digests"`
	Config   *config               `json:"config"`
}

type config struct {
	JSONSize     decimal       `json:"json_size"`
	KeyslotsSize decimal       `json:"keyslots_size"`
	Flags        []string      `json:"flags"`
	Requirements *requirements `json:"requirements"`
}

// requirements are features that a program must know to touch the volume at all.
type requirements struct {
	Mandatory []string `json:"mandatory"`
}

func (r *requirements) names() []string {
	if r == nil {
		return nil
	}
	return r.Mandatory
}

type segment struct {
	Type       string         `json:"type"`
	Offset     decimal        `json:"offset"`
	Size       string         `json:"size"`
	IVTweak    *decimal       `json:"iv_tweak"`
	Encryption string         `json:"encryption"`
	SectorSize uint32         `json:"sector_size"`
	Integrity  jsontext.Value `json:"integrity,omitzero"`
	Flags      []string       `json:"flags"`
}

type digest struct {
	Type       string     `json:"type"`
	Keyslots   []id       `json:"keyslots"`
	Segments   []id       `json:"segments"`
	Hash       string     `json:"hash"`
	Iterations uint32     `json:"iterations"`
	Salt       binaryText `json:"salt"`
	Digest     binaryText `json:"digest"`
}

type keyslot struct {
	Type     string `json:"type"`
	KeySize  uint32 `json:"key_size"`
	AF       af     `json:"af"`
	Area     area   `json:"area"`
	KDF      kdf    `json:"kdf"`
	Priority *int   `json:"priority"`
}

// af is the anti-forensic splitter.
type af struct {
	Type    string `json:"type"`
	Stripes uint32 `json:"stripes"`
	Hash    string `json:"hash"`
}

type area struct {
	Type       string  `json:"type"`
	Offset     decimal `json:"offset"`
	Size       decimal `json:"size"`
	Encryption string  `json:"encryption"`
	KeySize    uint32  `json:"key_size"`
}

type kdf struct {
	Type       string     `json:"type"`
	Salt       binaryText `json:"salt"`
	Hash       string     `json:"hash"`
	Iterations uint32     `json:"iterations"`
	Time       uint32     `json:"time"`
	Memory     uint32     `json:"memory"`
	CPUs       uint32     `json:"cpus"`
}

// tokenObject is what every token has, whoever wrote it.
type tokenObject struct {
	Type     string `json:"type"`
	Keyslots []id   `json:"keyslots"`
}

func parseMetadata(c *headerCopy) (metadata, *Refusal) {
	text, padding, terminated := bytes.Cut(c.json(), []byte{0})
	if !terminated || !zero(padding) {
		return metadata{}, refuse(CodeJSONTrailing, "the JSON text is not padded with NUL")
	}
	if err := checkSyntax(text); err != nil {
		return metadata{}, refuse(CodeJSONSyntax, "%v", err)
	}
	var m metadata
	if err := strictly(text, &m); err != nil {
		return metadata{}, refuse(CodeJSONShape, "%v", err)
	}
	if m.Keyslots == nil || m.Tokens == nil || m.Segments == nil || m.Digests == nil || m.Config == nil {
		return metadata{}, refuse(CodeJSONShape, "keyslots, tokens, segments, digests or config is missing")
	}
	return m, nil
}
