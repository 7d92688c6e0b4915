package luks

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"regexp"
)

// The binary header (specification, section 2.1). All integers are big-endian.
//
//	   0  magic           6   "LUKS\xba\xbe", or "SKUL\xba\xbe" in the second copy
//	   6  version         2   2
//	   8  hdr_size        8   binary header and JSON area together
//	  16  seqid           8   grows with every change
//	  24  label          48
//	  72  csum_alg       32   "sha256"
//	 104  salt           64
//	 168  uuid           40
//	 208  subsystem      48
//	 256  hdr_offset      8   where this copy stands
//	 264  padding       184
//	 448  csum           64   over hdr_size bytes, with csum taken as zero
//	 512  padding      3584
//	4096  JSON area
const (
	binarySize     = 4096
	minHeaderSize  = 16 << 10
	maxHeaderSize  = 4 << 20
	checksumOffset = 448
	checksumField  = 64
)

const (
	primaryMagic   = "LUKS\xba\xbe"
	secondaryMagic = "SKUL\xba\xbe"
)

// headerCopy is one of the two copies of the header, with a valid checksum.
type headerCopy struct {
	size      uint64
	seqid     uint64
	label     string
	subsystem string
	uuid      string
	bytes     []byte // of the whole copy
}

// json returns the whole JSON area, padding included.
func (c *headerCopy) json() []byte { return c.bytes[binarySize:] }

// asPrimary returns the copy as it stands at the start of a device, whichever of
// the two it is.
func (c *headerCopy) asPrimary() []byte { return c.asCopy(primaryMagic, 0) }

// asCopy returns it as it stands at an offset.
func (c *headerCopy) asCopy(magic string, offset uint64) []byte {
	b := bytes.Clone(c.bytes)
	copy(b, magic)
	binary.BigEndian.PutUint64(b[256:], offset)
	copy(b[checksumOffset:], checksum(b))
	return b
}

// headerSize reads magic, version and hdr_size of the first bytes of a copy.
func headerSize(b []byte, magic string) (uint64, *Refusal) {
	if string(b[:6]) != magic {
		return 0, refuse(CodeNotLUKS, "no LUKS magic at the start of the header")
	}
	switch version := binary.BigEndian.Uint16(b[6:]); version {
	case 2:
	case 1:
		return 0, refuse(CodeLUKS1, "LUKS1; convert it with cryptsetup convert --type luks2")
	default:
		return 0, refuse(CodeVersion, "version %d", version)
	}
	size := binary.BigEndian.Uint64(b[8:])
	if size < minHeaderSize || size > maxHeaderSize || size&(size-1) != 0 {
		return 0, refuse(CodeHeaderSize, "%d bytes", size)
	}
	return size, nil
}

// parseCopy parses b, the hdr_size bytes found at offset.
func parseCopy(b []byte, offset uint64) (*headerCopy, *Refusal) {
	if r := checkSum(b); r != nil {
		return nil, r
	}
	if stated := binary.BigEndian.Uint64(b[256:]); stated != offset {
		return nil, refuse(CodeHeaderOffset, "states offset %d, stands at %d", stated, offset)
	}
	if !zero(b[264:checksumOffset]) || !zero(b[checksumOffset+sha256.Size:binarySize]) {
		return nil, refuse(CodeHeaderPadding, "reserved bytes are not zero")
	}
	c := &headerCopy{
		size:  uint64(len(b)),
		seqid: binary.BigEndian.Uint64(b[16:]),
		bytes: b,
	}
	for field, text := range map[*string][]byte{&c.label: b[24:72], &c.uuid: b[168:208], &c.subsystem: b[208:256]} {
		var err error
		if *field, err = paddedText(text); err != nil {
			return nil, refuse(CodeHeaderText, "%v", err)
		}
	}
	if !uuidForm.MatchString(c.uuid) {
		return nil, refuse(CodeHeaderText, "UUID %q", c.uuid)
	}
	return c, nil
}

// uuidForm is how cryptsetup writes every UUID.
var uuidForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

func checkSum(b []byte) *Refusal {
	if algorithm, err := paddedText(b[72:104]); err != nil || algorithm != "sha256" {
		return refuse(CodeChecksumAlgorithm, "%q, want sha256", algorithm)
	}
	if !bytes.Equal(checksum(b), b[checksumOffset:checksumOffset+sha256.Size]) {
		return refuse(CodeChecksum, "checksum does not match")
	}
	return nil
}

func checksum(b []byte) []byte {
	h := sha256.New()
	h.Write(b[:checksumOffset])
	h.Write(make([]byte, checksumField))
	h.Write(b[checksumOffset+checksumField:])
	return h.Sum(nil)
}

// paddedText returns the text of a NUL-padded field. The padding must be whole
// and the text must be valid UTF-8 without control characters.
func paddedText(field []byte) (string, error) {
	text, padding, found := bytes.Cut(field, []byte{0})
	if !found || !zero(padding) {
		return "", fmt.Errorf("text field %q is not padded with NUL", field)
	}
	if !printable(text) {
		return "", fmt.Errorf("text field %q is not printable", text)
	}
	return string(text), nil
}

func zero(b []byte) bool {
	return len(bytes.Trim(b, "\x00")) == 0
}
