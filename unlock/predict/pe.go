package predict

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"keywright.dev/kms/claims"
)

// Sizes and offsets of the PE format (Microsoft, "PE Format").
const (
	maxImage     = 1<<32 - 1
	maxHeaders   = 64 << 10
	maxSections  = 96
	lfanewOffset = 0x3c
	coffSize     = 24 // "PE\0\0" and the COFF header
	sectionSize  = 40
	pe32Plus     = 0x20b
	// In the optional header:
	sizeOfHeadersAt = 60
	checksumAt      = 64
	directoriesAt   = 108 // their number
	securityAt      = 144 // entry 4
	securitySize    = 8
)

// section is a section header.
type section struct {
	name        string
	virtualSize uint32
	rawSize     uint32
	rawOffset   uint32
}

// image is a PE32+ file whose headers are sound: everything that they point to
// lies inside the file.
type image struct {
	file          io.ReaderAt
	size          int64
	headers       []byte // SizeOfHeaders bytes
	optional      int    // offset of the optional header
	sections      []section
	signatureSize uint32
}

func parsePE(file io.ReaderAt, size int64) (*image, error) {
	if size > maxImage {
		return nil, fmt.Errorf("it has %d bytes, at most %d are allowed", size, int64(maxImage))
	}
	start := make([]byte, min(size, maxHeaders))
	if _, err := file.ReadAt(start, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	img := &image{file: file, size: size}
	count, table, err := img.parseHeaders(start)
	if err != nil {
		return nil, err
	}
	for i := range count {
		s, err := parseSection(start[table+i*sectionSize:], size)
		if err != nil {
			return nil, err
		}
		img.sections = append(img.sections, s)
	}
	return img, nil
}

// parseHeaders returns how many sections there are and where their table is.
func (img *image) parseHeaders(start []byte) (count, table int, err error) {
	le := binary.LittleEndian
	if len(start) < lfanewOffset+4 || !bytes.HasPrefix(start, []byte("MZ")) {
		return 0, 0, errors.New("it is no PE file")
	}
	pe := int64(le.Uint32(start[lfanewOffset:]))
	if pe+coffSize+securityAt+securitySize > int64(len(start)) || !bytes.HasPrefix(start[pe:], []byte("PE\x00\x00")) {
		return 0, 0, errors.New("it is no PE file, or its headers are cut off")
	}
	coff := start[pe:]
	count, optionalSize := int(le.Uint16(coff[6:])), int(le.Uint16(coff[20:]))
	img.optional = int(pe) + coffSize
	optional := start[img.optional:]
	if le.Uint16(optional) != pe32Plus || optionalSize < securityAt+securitySize || le.Uint32(optional[directoriesAt:]) < 5 {
		return 0, 0, errors.New("it is no 64-bit PE image (PE32+)")
	}
	table = img.optional + optionalSize
	headers := int64(le.Uint32(optional[sizeOfHeadersAt:]))
	if count == 0 || count > maxSections || int64(table+count*sectionSize) > headers || headers > int64(len(start)) {
		return 0, 0, fmt.Errorf("its %d section headers do not lie inside the file's headers", count)
	}
	img.headers = start[:headers]
	img.signatureSize = le.Uint32(optional[securityAt+4:])
	offset := int64(le.Uint32(optional[securityAt:]))
	if img.signatureSize != 0 && offset+int64(img.signatureSize) != img.size {
		return 0, 0, errors.New("its signature is not the end of the file")
	}
	return count, table, nil
}

func parseSection(header []byte, size int64) (section, error) {
	le := binary.LittleEndian
	s := section{
		name:        string(bytes.TrimRight(header[:8], "\x00")),
		virtualSize: le.Uint32(header[8:]),
		rawSize:     le.Uint32(header[16:]),
		rawOffset:   le.Uint32(header[20:]),
	}
	if s.rawSize != 0 && int64(s.rawOffset)+int64(s.rawSize) > size {
		return s, fmt.Errorf("its section %q does not lie inside the file", s.name)
	}
	return s, nil
}

// authenticode returns the digest that firmware measures of an image: SHA-256
// of the headers without checksum and signature directory, the sections in the
// order of the file, and what follows up to the signature (Microsoft, "Windows
// Authenticode Portable Executable Signature Format"; EDK II measures so).
func (img *image) authenticode() ([sha256.Size]byte, error) {
	h := sha256.New()
	checksum, security := img.optional+checksumAt, img.optional+securityAt
	h.Write(img.headers[:checksum])
	h.Write(img.headers[checksum+4 : security])
	h.Write(img.headers[security+securitySize:])
	sections := slices.Clone(img.sections)
	slices.SortStableFunc(sections, func(a, b section) int { return int(int64(a.rawOffset) - int64(b.rawOffset)) })
	hashed := int64(len(img.headers))
	for _, s := range sections {
		if hashed+int64(s.rawSize) > img.size {
			return [sha256.Size]byte{}, errors.New("its sections overlap")
		}
		if err := img.copy(h, int64(s.rawOffset), int64(s.rawSize)); err != nil {
			return [sha256.Size]byte{}, err
		}
		hashed += int64(s.rawSize)
	}
	if rest := img.size - int64(img.signatureSize) - hashed; rest > 0 {
		if err := img.copy(h, hashed, rest); err != nil {
			return [sha256.Size]byte{}, err
		}
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// signature returns whether the image carries a signature.
func (img *image) signature() string {
	if img.signatureSize > 0 {
		return claims.Present
	}
	return claims.Absent
}

// digest returns the SHA-256 of a section as it stands in memory, of which the
// file must hold everything.
func (img *image) digest(s section) ([sha256.Size]byte, error) {
	if err := s.check(maxImage); err != nil {
		return [sha256.Size]byte{}, err
	}
	h := sha256.New()
	err := img.copy(h, int64(s.rawOffset), int64(s.virtualSize))
	return [sha256.Size]byte(h.Sum(nil)), err
}

// check refuses a section that is longer than limit or that loading would fill
// up with zeros.
func (s section) check(limit uint32) error {
	if s.virtualSize > limit || s.virtualSize > s.rawSize {
		return fmt.Errorf("its section %q has %d bytes in memory and %d in the file, at most %d are read", s.name, s.virtualSize, s.rawSize, limit)
	}
	return nil
}

func (img *image) copy(h hash.Hash, offset, n int64) error {
	copied, err := io.Copy(h, io.NewSectionReader(img.file, offset, n))
	if err == nil && copied != n {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// content returns a small section's bytes.
func (img *image) content(s section, limit uint32) ([]byte, error) {
	if err := s.check(limit); err != nil {
		return nil, err
	}
	out := make([]byte, s.virtualSize)
	_, err := img.file.ReadAt(out, int64(s.rawOffset))
	if errors.Is(err, io.EOF) {
		err = nil // the section was checked to lie inside the file
	}
	return out, err
}
