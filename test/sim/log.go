package sim

import (
	"crypto"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"
	"golang.org/x/crypto/cryptobyte"

	"keywright.dev/kms/exchange"
)

// Log is a recorded event log and the PCR values that it leads to.
type Log struct {
	Bytes []byte
	PCRs  exchange.PCRValues
}

// ReadLog reads a log in the form of the kernel's binary_bios_measurements and
// replays it with an implementation that is not the one under test.
func ReadLog(path string) (*Log, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading an event log: %w", err)
	}
	return NewLog(data)
}

// NewLog replays a log.
func NewLog(data []byte) (*Log, error) {
	parsed, err := tcg.ParseEventLog(data, tcg.ParseOpts{AllowPadding: false})
	if err != nil {
		return nil, fmt.Errorf("parsing an event log: %w", err)
	}
	log := &Log{Bytes: data}
	for _, e := range parsed.Events(register.HashSHA256) {
		pcr := uint(e.MRIndex())
		value, ok := log.PCRs.Value(pcr)
		digest := e.ReplayedDigest()
		if !ok || len(digest) != crypto.SHA256.Size() {
			return nil, fmt.Errorf("replaying an event log: PCR %d is not quoted", pcr)
		}
		if e.UntrustedType() == tcg.NoAction {
			continue
		}
		log.PCRs.Set(pcr, exchange.Extend(value, [32]byte(digest)))
	}
	return log, nil
}

// With returns the log with one event more, measured before all others: data in
// one PCR, as an honest firmware would log it.
func (l *Log) With(pcr, eventType uint32, data []byte) (*Log, error) {
	end, algorithms, err := specID(l.Bytes)
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	addUint32(&b, pcr, eventType, uint32(len(algorithms)))
	for _, a := range algorithms {
		b.AddUint16(a.id<<8 | a.id>>8)
		digest := make([]byte, a.size)
		if a.id == sha256ID {
			sum := sha256.Sum256(data)
			copy(digest, sum[:])
		}
		b.AddBytes(digest)
	}
	addUint32(&b, uint32(len(data)))
	b.AddBytes(data)
	return NewLog(slices.Concat(l.Bytes[:end], b.BytesOrPanic(), l.Bytes[end:]))
}

const sha256ID = 0x000b

type algorithm struct{ id, size uint16 }

// specID returns where the first event ends and the algorithms it lists
// (TCG PC Client platform firmware profile, section 10.4.5.1).
func specID(log []byte) (end int, algorithms []algorithm, err error) {
	const head, fixed = 32, 24
	if len(log) < head+fixed+4 {
		return 0, nil, errors.New("the event log is too short")
	}
	end = head + int(binary.LittleEndian.Uint32(log[28:]))
	data := log[head:end]
	for i := range int(binary.LittleEndian.Uint32(data[fixed:])) {
		entry := data[fixed+4+4*i:]
		algorithms = append(algorithms, algorithm{binary.LittleEndian.Uint16(entry), binary.LittleEndian.Uint16(entry[2:])})
	}
	return end, algorithms, nil
}

// addUint32 adds numbers in the little-endian order of event logs.
func addUint32(b *cryptobyte.Builder, numbers ...uint32) {
	for _, n := range numbers {
		b.AddBytes(binary.LittleEndian.AppendUint32(nil, n))
	}
}
