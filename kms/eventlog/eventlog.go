// Package eventlog reads the event log of a machine's firmware, as the kernel
// shows it in binary_bios_measurements: the crypto-agile format of the TCG PC
// Client Platform Firmware Profile, section 10.2.
//
// Invariants:
//   - All bytes come from outside: lengths, counts and totals are bounded, and
//     nothing may follow.
//   - It knows SHA-256 digests alone; those of other banks are passed over.
//
// It refuses logs of the SHA-1 format and logs without SHA-256, and it judges
// nothing: what an event says is for package attest to tell.
package eventlog

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

const (
	// MaxBytes bounds a log. Logs of virtual machines have 1 to 50 KiB, those of
	// large servers up to 200.
	MaxBytes = 512 << 10
	// MaxEvents bounds the events of a log.
	MaxEvents = 4096
	// NoAction is the type of events that are not extended (section 10.4.1).
	NoAction = 0x00000003

	// maxBanks bounds the digests of one event.
	maxBanks = 8
	// maxPCR is the highest PCR of a PC Client TPM.
	maxPCR          = 23
	specIDSignature = "Spec ID Event03\x00"
	sha1Bytes       = 20
	algSHA1         = 0x0004
	algSHA256       = 0x000b
)

// Event is one TCG_PCR_EVENT2 with its SHA-256 digest.
type Event struct {
	PCR    uint32 // 0 to 23
	Type   uint32 // EV_…
	Digest [sha256.Size]byte
	Data   []byte
}

// Code is a stable name of a reason to refuse a log.
type Code string

// Reasons to refuse a log.
const (
	// Size: more than [MaxBytes] or [MaxEvents].
	Size Code = "log_size"
	// Malformed: cut off, contradicting its header, or with bytes that follow.
	Malformed Code = "log_malformed"
	// Legacy: of the SHA-1 format.
	Legacy Code = "log_legacy"
	// Bank: without SHA-256 digests.
	Bank Code = "log_bank"
)

// Error is a reason to refuse a log.
type Error struct {
	Code Code
	// Detail holds numbers alone, never text from the log.
	Detail string
}

// Error returns code and detail.
func (e *Error) Error() string { return string(e.Code) + ": " + e.Detail }

func refuse(code Code, format string, args ...any) *Error {
	return &Error{code, fmt.Sprintf(format, args...)}
}

// bank is one digest algorithm of a log.
type bank struct {
	algorithm uint16
	size      int
}

// Parse reads a log: a header event in the SHA-1 format, then events with one
// digest for each algorithm that the header declares. The events share data's
// memory. Its errors are [*Error].
func Parse(data []byte) ([]Event, error) {
	if len(data) > MaxBytes {
		return nil, refuse(Size, "the event log has %d bytes, at most %d are read", len(data), MaxBytes)
	}
	in := reader{data: data}
	banks, err := readHeader(&in)
	if err != nil {
		return nil, err
	}
	var events []Event
	for len(in.data) > 0 {
		if len(events) == MaxEvents {
			return nil, refuse(Size, "the event log has more than %d events", MaxEvents)
		}
		e, err := readEvent(&in, banks)
		if err != nil {
			return nil, err
		}
		events = append(events, e)
	}
	return events, nil
}

// readHeader reads the first event, a TCG_PCR_EVENT whose data is a
// TCG_EfiSpecIDEvent.
func readHeader(in *reader) ([]bank, error) {
	pcr, kind := in.uint32(), in.uint32()
	in.take(sha1Bytes)
	data := in.take(int(in.uint32()))
	if in.failed {
		return nil, refuse(Malformed, "the event log ends inside its header")
	}
	spec, ok := bytes.CutPrefix(data, []byte(specIDSignature))
	if pcr != 0 || kind != NoAction || !ok {
		return nil, refuse(Legacy, "the event log does not begin with a %q event: only crypto-agile logs are read, a log with SHA-1 alone is not", "Spec ID Event03")
	}
	return readBanks(&reader{data: spec})
}

func readBanks(in *reader) ([]bank, error) {
	in.take(8) // platform class, version, errata, size of UINTN
	count := in.uint32()
	if count == 0 || count > maxBanks {
		return nil, refuse(Malformed, "the event log declares %d digest algorithms, want 1 to %d", count, maxBanks)
	}
	banks := make([]bank, count)
	hasSHA256 := false
	for i := range banks {
		banks[i] = bank{in.uint16(), int(in.uint16())}
		if !banks[i].sound(banks[:i]) {
			return nil, refuse(Malformed, "the event log declares digest algorithm 0x%04x twice or with %d bytes", banks[i].algorithm, banks[i].size)
		}
		hasSHA256 = hasSHA256 || banks[i].algorithm == algSHA256
	}
	in.take(int(in.uint8())) // vendor's information
	if in.failed || len(in.data) > 0 {
		return nil, refuse(Malformed, "the event log's header has a wrong length")
	}
	if !hasSHA256 {
		return nil, refuse(Bank, "the event log has no SHA-256 digests: enable the TPM's SHA-256 bank")
	}
	return banks, nil
}

// sound tells whether a bank is new among those before it and has the digest
// size of its algorithm, as far as it is known.
func (b bank) sound(before []bank) bool {
	for _, other := range before {
		if other.algorithm == b.algorithm {
			return false
		}
	}
	switch b.algorithm {
	case algSHA1:
		return b.size == sha1Bytes
	case algSHA256:
		return b.size == sha256.Size
	default:
		return b.size > 0 && b.size <= 64
	}
}

func readEvent(in *reader, banks []bank) (Event, error) {
	e := Event{PCR: in.uint32(), Type: in.uint32()}
	if count := in.uint32(); in.failed || int(count) != len(banks) {
		return e, refuse(Malformed, "an event has %d digests, the header declares %d", count, len(banks))
	}
	var seen [maxBanks]bool
	for range banks {
		algorithm := in.uint16()
		i := indexOf(banks, algorithm)
		if in.failed || i < 0 || seen[i] {
			return e, refuse(Malformed, "an event has a digest of algorithm 0x%04x twice or undeclared", algorithm)
		}
		seen[i] = true
		digest := in.take(banks[i].size)
		if algorithm == algSHA256 {
			copy(e.Digest[:], digest)
		}
	}
	e.Data = in.take(int(in.uint32()))
	if in.failed || e.PCR > maxPCR {
		return e, refuse(Malformed, "an event of PCR %d is cut off or of a PCR that does not exist", e.PCR)
	}
	return e, nil
}

func indexOf(banks []bank, algorithm uint16) int {
	for i, b := range banks {
		if b.algorithm == algorithm {
			return i
		}
	}
	return -1
}

// reader reads little-endian values. After it failed it yields zeros.
type reader struct {
	data   []byte
	failed bool
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.data) {
		r.data, r.failed = nil, true
		return nil
	}
	out := r.data[:n:n]
	r.data = r.data[n:]
	return out
}

func (r *reader) uint8() uint8 {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if b := r.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}
