package sim

import (
	"crypto"
	"fmt"
	"os"

	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"

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
		pcr := uint(e.MRIndex()) //nolint:gosec // an index of a PCR
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
