package tpm

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

const (
	// DefaultEventLog is where the kernel shows the firmware's event log.
	DefaultEventLog = "/sys/kernel/security/tpm0/binary_bios_measurements"
	// MaxEventLog bounds an event log, in bytes.
	MaxEventLog = 4 << 20
)

// ReadEventLog reads an event log of at most [MaxEventLog] bytes. The error of
// a missing one wraps fs.ErrNotExist.
func ReadEventLog(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the event log: %w: the firmware left none, or securityfs is not mounted on /sys/kernel/security", err)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the event log: %w", err)
	}
	defer func() { _ = f.Close() }()
	// The kernel reports a size of 0 for it.
	log, err := io.ReadAll(io.LimitReader(f, MaxEventLog+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the event log: %w", err)
	case len(log) == 0:
		return nil, fmt.Errorf("reading the event log: %s is empty", path)
	case len(log) > MaxEventLog:
		return nil, fmt.Errorf("reading the event log: %s has more than %d bytes", path, MaxEventLog)
	}
	return log, nil
}
