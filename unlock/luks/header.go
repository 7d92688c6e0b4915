package luks

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Copies says which of the header's two copies were good. cryptsetup repairs
// the other one when it next writes.
type Copies string

// What [Header.Copies] says.
const (
	CopiesBoth           Copies = "both"           // equal
	CopiesPrimaryOnly    Copies = "primary-only"   // the second is damaged
	CopiesSecondaryOnly  Copies = "secondary-only" // the first is damaged
	CopiesPrimaryNewer   Copies = "primary-newer"
	CopiesSecondaryNewer Copies = "secondary-newer"
)

// Header is a LUKS2 header as it stands on a device: its checksum is right and
// its JSON is well-formed. Only [Header.Validate] says whether it can be trusted
// with a key.
type Header struct {
	// UUID is the volume's UUID in lower case with dashes.
	UUID string
	// Label and Subsystem are the optional texts of the header.
	Label, Subsystem string
	// SequenceID grows with every change; luksDump calls it epoch.
	SequenceID uint64
	// Copies says which copies were good.
	Copies Copies

	chosen     *headerCopy
	deviceSize uint64
	source     io.ReaderAt
	device     *os.File // nil unless read by ReadDevice
	metadata   metadata
}

// ReadDevice reads the header of an open block device or plain file and keeps
// the file, which stays the caller's to close: [Volume.Open] opens the volume on
// this very file. A header that is not acceptable is a [*Refusal].
func ReadDevice(device *os.File) (*Header, error) {
	size, err := deviceSize(device)
	if err != nil {
		return nil, fmt.Errorf("reading the size of %s: %w", device.Name(), err)
	}
	h, err := Parse(device, size)
	if err != nil {
		return nil, err
	}
	h.device = device
	return h, nil
}

// Parse reads the header of a volume of size bytes. Both copies are read, once.
// As cryptsetup does, it takes the newer good copy; a damaged one alone is no
// refusal. A header that is not acceptable is a [*Refusal]; an error of r is
// returned wrapped.
func Parse(r io.ReaderAt, size uint64) (*Header, error) {
	c, copies, err := readCopies(r)
	if err != nil {
		return nil, err
	}
	m, refusal := parseMetadata(c)
	if refusal != nil {
		return nil, refusal
	}
	return &Header{
		UUID: c.uuid, Label: c.label, Subsystem: c.subsystem, SequenceID: c.seqid, Copies: copies,
		chosen: c, deviceSize: size, source: r, metadata: m,
	}, nil
}

// Reencrypting tells whether a reencryption of the volume was begun and has not
// ended. Such a header does not validate: cryptsetup alone opens the volume, and
// recovers it if it was cut.
func (h *Header) Reencrypting() bool {
	if h.metadata.Config.Requirements == nil {
		return false
	}
	return slices.ContainsFunc(h.metadata.Config.Requirements.names(), func(name string) bool {
		return name == "online-reencrypt" || strings.HasPrefix(name, "online-reencrypt-v")
	})
}

func readCopies(r io.ReaderAt) (*headerCopy, Copies, error) {
	primary, refusal, err := readCopy(r, 0, primaryMagic)
	switch {
	case err != nil:
		return nil, "", err
	case primary == nil && !refusal.damage():
		return nil, "", refusal
	case primary == nil:
		secondary, err := findSecondary(r)
		if err == nil && secondary == nil {
			err = refusal
		}
		return secondary, CopiesSecondaryOnly, err
	}
	secondary, _, err := readCopy(r, primary.size, secondaryMagic)
	if err != nil {
		return nil, "", err
	}
	return newer(primary, secondary)
}

// newer chooses as cryptsetup does: the copy with the higher sequence number.
func newer(primary, secondary *headerCopy) (*headerCopy, Copies, error) {
	switch {
	case secondary == nil:
		return primary, CopiesPrimaryOnly, nil
	case primary.seqid > secondary.seqid:
		return primary, CopiesPrimaryNewer, nil
	case primary.seqid < secondary.seqid:
		return secondary, CopiesSecondaryNewer, nil
	case primary.uuid != secondary.uuid || !bytes.Equal(primary.json(), secondary.json()):
		return nil, "", refuse(CodeCopiesDiffer, "both copies have sequence number %d", primary.seqid)
	default:
		return primary, CopiesBoth, nil
	}
}

// findSecondary looks for a good second copy at every place that the
// specification allows. It returns nil where there is none.
func findSecondary(r io.ReaderAt) (*headerCopy, error) {
	for offset := uint64(minHeaderSize); offset <= maxHeaderSize; offset *= 2 {
		c, _, err := readCopy(r, offset, secondaryMagic)
		if err != nil {
			return nil, err
		}
		if c != nil && c.size == offset {
			return c, nil
		}
	}
	return nil, nil
}

// readCopy reads the copy at offset. Without an error it returns either the copy
// or the reason why there is no good one.
func readCopy(r io.ReaderAt, offset uint64, magic string) (*headerCopy, *Refusal, error) {
	start := make([]byte, 16)
	if refusal, err := readFull(r, start, offset); refusal != nil || err != nil {
		return nil, refusal, err
	}
	size, refusal := headerSize(start, magic)
	if refusal != nil {
		return nil, refusal, nil
	}
	b := make([]byte, size)
	if refusal, err := readFull(r, b, offset); refusal != nil || err != nil {
		return nil, refusal, err
	}
	// What is judged is what was read in one piece.
	if again, refusal := headerSize(b, magic); refusal != nil || again != size {
		return nil, refuse(CodeHeaderSize, "the header changed while it was read"), nil
	}
	c, refusal := parseCopy(b, offset)
	return c, refusal, nil
}

func readFull(r io.ReaderAt, b []byte, offset uint64) (*Refusal, error) {
	n, err := r.ReadAt(b, int64(offset))
	switch {
	case n == len(b):
		return nil, nil
	case errors.Is(err, io.EOF):
		return refuse(CodeTruncated, "the device ends inside the header at offset %d", offset), nil
	default:
		return nil, fmt.Errorf("reading the LUKS header at offset %d: %w", offset, err)
	}
}

// damage reports whether r is what a torn or overwritten copy looks like, so
// that the other copy may stand in for it.
func (r *Refusal) damage() bool {
	return r.Code != CodeLUKS1 && r.Code != CodeVersion
}

// deviceSize returns the size in bytes of a block device or plain file.
func deviceSize(f *os.File) (uint64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if info.Mode().IsRegular() {
		return uint64(info.Size()), nil
	}
	size, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKGETSIZE64)
	return uint64(size), err
}
