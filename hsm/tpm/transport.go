package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

const (
	// DefaultPath is the kernel's TPM behind its resource manager.
	DefaultPath = "/dev/tpmrm0"

	maxResponse = 4096
	headerSize  = 10

	firstPause = time.Millisecond
	// retries bounds the waiting for a busy TPM: 1 ms doubled 12 times, 8 s.
	retries = 13
)

// file is a TPM character device.
type file struct {
	*os.File
}

// openFile opens a device in blocking mode. The runtime's poller would put it
// into the kernel's asynchronous mode, in which a read may return nothing.
func openFile(path string) (*file, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("opening the TPM: %w: this machine has no TPM 2.0, or its driver is not loaded", err)
	case err != nil:
		return nil, fmt.Errorf("opening the TPM: %w", err)
	case info.Mode()&fs.ModeCharDevice == 0:
		return nil, fmt.Errorf("opening the TPM: %s: %w", path, ErrNoDevice)
	}
	fd, err := syscall.Open(path, syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the TPM: %w", &fs.PathError{Op: "open", Path: path, Err: err})
	}
	return &file{os.NewFile(uintptr(fd), path)}, nil
}

// Send writes one command and reads its response, which the kernel gives in
// one piece.
func (f *file) Send(command []byte) ([]byte, error) {
	if _, err := f.Write(command); err != nil {
		return nil, fmt.Errorf("sending a command to the TPM: %w", err)
	}
	response := make([]byte, maxResponse)
	n, err := f.Read(response)
	if err != nil {
		return nil, fmt.Errorf("reading a response of the TPM: %w", err)
	}
	return response[:n], nil
}

// patient repeats commands that the TPM was too busy to begin or finish.
type patient struct {
	transport.TPM
	sleep func(time.Duration)
}

// Send transmits one command. After a few seconds of trying it returns the
// TPM's refusal as it is.
func (p patient) Send(command []byte) ([]byte, error) {
	pause := firstPause
	for attempt := 1; ; attempt++ {
		response, err := p.TPM.Send(command)
		if err != nil {
			return nil, err
		}
		if attempt == retries || !busy(response) {
			return response, nil
		}
		p.sleep(pause)
		pause *= 2
	}
}

// busy tells whether a response asks to send the command again (TPM 2.0 part 2,
// section 6.6.3).
func busy(response []byte) bool {
	if len(response) < headerSize {
		return false
	}
	switch tpm2.TPMRC(binary.BigEndian.Uint32(response[6:])) {
	case tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting:
		return true
	default:
		return false
	}
}
