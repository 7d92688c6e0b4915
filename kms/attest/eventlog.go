package attest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
)

const (
	// MaxLog bounds an event log, in bytes. Logs of virtual machines have 1 to
	// 50 KiB, those of large servers up to 200.
	MaxLog = 512 << 10
	// maxEvents bounds the events of a log.
	maxEvents = 4096
	// maxBanks bounds the digests of one event.
	maxBanks = 8
	// maxPCR is the highest PCR of a PC Client TPM.
	maxPCR = 23
	// loggedPCRs is one more than the highest PCR that is replayed.
	loggedPCRs = 15
)

// Event types of the TCG PC Client Platform Firmware Profile, section 10.4.1.
const (
	evNoAction          = 0x00000003
	evSeparator         = 0x00000004
	evAction            = 0x00000005
	evEventTag          = 0x00000006
	evCRTMVersion       = 0x00000008
	evIPL               = 0x0000000d
	evVariableConfig    = 0x80000001
	evVariableBoot      = 0x80000002
	evBootApplication   = 0x80000003
	evGPT               = 0x80000006
	evEFIAction         = 0x80000007
	evFirmwareBlob      = 0x80000008
	evHandoffTables     = 0x80000009
	evFirmwareBlob2     = 0x8000000a
	evHandoffTables2    = 0x8000000b
	evVariableBoot2     = 0x8000000c
	evVariableAuthority = 0x800000e0
)

const (
	specIDSignature = "Spec ID Event03\x00"
	localityPrefix  = "StartupLocality\x00"
	sha1Bytes       = 20
)

// event is one TCG_PCR_EVENT2 with its SHA-256 digest. Only pcr and digest are
// covered, by replay; data where it hashes to the digest.
type event struct {
	pcr    uint32
	kind   uint32
	digest [sha256.Size]byte
	data   []byte
}

// covered tells whether the digest is that of the data.
func (e *event) covered() bool { return sha256.Sum256(e.data) == e.digest }

// eventLog is a parsed log: the extending events of PCRs 0 to 14 in order,
// one list a PCR, and the locality that PCR 0 started from.
type eventLog struct {
	events   [loggedPCRs][]event
	locality byte
}

// bank is one digest algorithm of a log.
type bank struct {
	algorithm uint16
	size      int
}

// parseLog reads a crypto-agile event log (TCG PC Client Platform Firmware
// Profile, section 10.2): a header event in the SHA-1 format, then events with
// one digest for each algorithm that the header declares.
func parseLog(data []byte) (*eventLog, error) {
	if len(data) > MaxLog {
		return nil, refuse(LogSize, "the event log has %d bytes, at most %d are read", len(data), MaxLog)
	}
	in := reader{data: data}
	banks, err := readHeader(&in)
	if err != nil {
		return nil, err
	}
	log := new(eventLog)
	for n := 0; len(in.data) > 0; n++ {
		if n == maxEvents {
			return nil, refuse(LogSize, "the event log has more than %d events", maxEvents)
		}
		e, err := readEvent(&in, banks)
		if err != nil {
			return nil, err
		}
		if err := log.add(e); err != nil {
			return nil, err
		}
	}
	return log, nil
}

// add takes one event. What is not extended says nothing but the locality;
// what is extended into a PCR that is not replayed says nothing at all.
func (l *eventLog) add(e event) error {
	switch {
	case e.kind == evNoAction:
		return l.addLocality(e)
	case e.pcr < loggedPCRs && e.pcr != imaPCR:
		l.events[e.pcr] = append(l.events[e.pcr], e)
	}
	return nil
}

// addLocality takes the locality that the TPM was started from, which is the
// value that PCR 0 starts with (section 10.4.5.3).
func (l *eventLog) addLocality(e event) error {
	value, ok := bytes.CutPrefix(e.data, []byte(localityPrefix))
	if !ok {
		return nil
	}
	if e.pcr != 0 || len(value) != 1 || value[0] != 0 && value[0] != 3 && value[0] != 4 {
		return refuse(LogLocality, "the startup locality is not 0, 3 or 4 of PCR 0")
	}
	if l.locality != 0 || len(l.events[0]) > 0 {
		return refuse(LogLocality, "the startup locality is told twice, or after PCR 0 was extended")
	}
	l.locality = value[0]
	return nil
}

// readHeader reads the first event, a TCG_PCR_EVENT whose data is a
// TCG_EfiSpecIDEvent.
func readHeader(in *reader) ([]bank, error) {
	pcr, kind := in.uint32(), in.uint32()
	in.take(sha1Bytes)
	data := in.take(int(in.uint32()))
	if in.failed {
		return nil, refuse(LogMalformed, "the event log ends inside its header")
	}
	spec, ok := bytes.CutPrefix(data, []byte(specIDSignature))
	if pcr != 0 || kind != evNoAction || !ok {
		return nil, refuse(LogLegacy, "the event log does not begin with a %q event: only crypto-agile logs are read, a log with SHA-1 alone is not", "Spec ID Event03")
	}
	return readBanks(&reader{data: spec})
}

func readBanks(in *reader) ([]bank, error) {
	in.take(8) // platform class, version, errata, size of UINTN
	count := in.uint32()
	if count == 0 || count > maxBanks {
		return nil, refuse(LogMalformed, "the event log declares %d digest algorithms, want 1 to %d", count, maxBanks)
	}
	banks := make([]bank, count)
	hasSHA256 := false
	for i := range banks {
		banks[i] = bank{in.uint16(), int(in.uint16())}
		if !banks[i].sound(banks[:i]) {
			return nil, refuse(LogMalformed, "the event log declares digest algorithm 0x%04x twice or with %d bytes", banks[i].algorithm, banks[i].size)
		}
		hasSHA256 = hasSHA256 || banks[i].algorithm == algSHA256
	}
	in.take(int(in.uint8())) // vendor's information
	if in.failed || len(in.data) > 0 {
		return nil, refuse(LogMalformed, "the event log's header has a wrong length")
	}
	if !hasSHA256 {
		return nil, refuse(LogBank, "the event log has no SHA-256 digests: enable the TPM's SHA-256 bank")
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
	case 0x0004: // SHA-1
		return b.size == sha1Bytes
	case algSHA256:
		return b.size == sha256.Size
	default:
		return b.size > 0 && b.size <= 64
	}
}

func readEvent(in *reader, banks []bank) (event, error) {
	e := event{pcr: in.uint32(), kind: in.uint32()}
	if count := in.uint32(); in.failed || int(count) != len(banks) {
		return e, refuse(LogMalformed, "an event has %d digests, the header declares %d", count, len(banks))
	}
	var seen [maxBanks]bool
	for range banks {
		algorithm := in.uint16()
		i := indexOf(banks, algorithm)
		if in.failed || i < 0 || seen[i] {
			return e, refuse(LogMalformed, "an event has a digest of algorithm 0x%04x twice or undeclared", algorithm)
		}
		seen[i] = true
		digest := in.take(banks[i].size)
		if algorithm == algSHA256 {
			copy(e.digest[:], digest)
		}
	}
	e.data = in.take(int(in.uint32()))
	if in.failed || e.pcr > maxPCR {
		return e, refuse(LogMalformed, "an event of PCR %d is cut off or of a PCR that does not exist", e.pcr)
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

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}
