// Package swtpm runs software TPMs (the program swtpm) for tests and for the
// demonstration: it manufactures them with EK certificates, starts them, resets
// them as a reboot does, kills them as a power cut does, and replays a recorded
// boot into them.
//
// Invariants:
//   - A TPM ends with the process that started it, however that ends.
//   - Everything lives under directories that the caller names; nothing listens
//     on the network.
package swtpm

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/go-tpm/tpm2"

	"keywright.dev/test/process"
)

const (
	startTimeout = 10 * time.Second
	startPoll    = 5 * time.Millisecond
	// controlInit is CMD_INIT of swtpm's control channel: power on.
	controlInit = 2
	headerSize  = 10
	maxResponse = 4096
)

// TPM is a running software TPM with one connection to it. It implements
// go-tpm's transport.TPMCloser.
type TPM struct {
	state string
	run   string // holds the sockets; short, for a socket's path is bounded

	process *process.Process // nil while it does not run
	mu      sync.Mutex
	conn    net.Conn
	answers *bufio.Reader
}

// Start starts a TPM on a state directory and sends it TPM2_Startup(CLEAR). An
// empty directory becomes a new TPM without certificates.
func Start(state string) (*TPM, error) {
	state, err := filepath.Abs(state)
	if err != nil {
		return nil, err
	}
	t := &TPM{state: state}
	if err := t.start(); err != nil {
		return nil, fmt.Errorf("starting swtpm on %s: %w", state, err)
	}
	return t, nil
}

// Send transmits one command and returns its response.
func (t *TPM) Send(command []byte) ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, err := t.conn.Write(command); err != nil {
		return nil, fmt.Errorf("sending to swtpm: %w", err)
	}
	header, err := t.answers.Peek(headerSize)
	if err != nil {
		return nil, fmt.Errorf("receiving from swtpm: %w", err)
	}
	size := binary.BigEndian.Uint32(header[2:])
	if size < headerSize || size > maxResponse {
		return nil, fmt.Errorf("receiving from swtpm: a response of %d bytes", size)
	}
	response := make([]byte, size)
	if _, err := io.ReadFull(t.answers, response); err != nil {
		return nil, fmt.Errorf("receiving from swtpm: %w", err)
	}
	return response, nil
}

// Reset power-cycles the TPM without warning and starts it up, as a reset of
// the machine does: PCRs are zero, resetCount is one higher.
func (t *TPM) Reset() error { return t.cycle(tpm2.TPMSUClear) }

// Resume suspends the TPM and resumes it, as a machine does that sleeps: PCRs are
// kept, restartCount is one higher.
func (t *TPM) Resume() error {
	if _, err := (tpm2.Shutdown{ShutdownType: tpm2.TPMSUState}).Execute(t); err != nil {
		return fmt.Errorf("suspending swtpm: %w", err)
	}
	return t.cycle(tpm2.TPMSUState)
}

// Hibernate suspends the TPM and starts it up anew, as a machine does that
// hibernates and boots: PCRs are zero, restartCount is one higher.
func (t *TPM) Hibernate() error {
	if _, err := (tpm2.Shutdown{ShutdownType: tpm2.TPMSUState}).Execute(t); err != nil {
		return fmt.Errorf("suspending swtpm: %w", err)
	}
	return t.cycle(tpm2.TPMSUClear)
}

func (t *TPM) cycle(startup tpm2.TPMSU) error {
	if err := t.control(controlInit, 0); err != nil {
		return fmt.Errorf("resetting swtpm: %w", err)
	}
	if _, err := (tpm2.Startup{StartupType: startup}).Execute(t); err != nil {
		return fmt.Errorf("starting up after a reset: %w", err)
	}
	return nil
}

// CrashStarting resets the TPM and kills it while it starts up, at whatever point
// it has come to; then it is started again.
func (t *TPM) CrashStarting() error {
	if err := t.control(controlInit, 0); err != nil {
		return fmt.Errorf("resetting swtpm: %w", err)
	}
	// TPM2_Startup(CLEAR), whose answer nobody reads.
	startup := []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x44, 0, 0}
	if _, err := t.conn.Write(startup); err != nil {
		return fmt.Errorf("sending to swtpm: %w", err)
	}
	return t.Restart()
}

// Shutdown tells the TPM that power will go, as an orderly operating system
// does before [TPM.Reset] or [TPM.Close].
func (t *TPM) Shutdown() error {
	_, err := (tpm2.Shutdown{ShutdownType: tpm2.TPMSUClear}).Execute(t)
	return err
}

// Restart ends the process with SIGKILL and starts it on the same state.
func (t *TPM) Restart() error {
	if err := t.Close(); err != nil {
		return err
	}
	return t.start()
}

// Close ends the process with SIGKILL. It may be called again.
func (t *TPM) Close() error {
	if t.process == nil {
		return nil
	}
	return errors.Join(t.conn.Close(), t.stop())
}

func (t *TPM) start() error {
	run, err := os.MkdirTemp("", "swtpm")
	if err != nil {
		return err
	}
	t.run = run
	t.process, err = process.Start(exec.Command("swtpm", "socket", "--tpm2", "--terminate",
		"--tpmstate", "dir="+t.state,
		"--server", "type=unixio,path="+t.socket("server"),
		"--ctrl", "type=unixio,path="+t.socket("control"),
		"--flags", "not-need-init,startup-clear"))
	if err != nil {
		t.process = nil
		return errors.Join(err, os.RemoveAll(run))
	}
	if err := t.connect(); err != nil {
		return errors.Join(err, t.stop())
	}
	return nil
}

func (t *TPM) connect() error {
	deadline := time.Now().Add(startTimeout)
	for {
		conn, err := net.Dial("unix", t.socket("server"))
		if err == nil {
			t.conn, t.answers = conn, bufio.NewReaderSize(conn, maxResponse)
			return nil
		}
		if time.Now().After(deadline) {
			return err
		}
		time.Sleep(startPoll)
	}
}

func (t *TPM) stop() error {
	t.process.Kill()
	t.process = nil
	return os.RemoveAll(t.run)
}

func (t *TPM) socket(name string) string {
	return filepath.Join(t.run, name)
}

// control sends one command on the control channel (swtpm_ioctls(3)): a code
// and its argument, big-endian; the answer is a result code.
func (t *TPM) control(code, argument uint32) error {
	conn, err := net.Dial("unix", t.socket("control"))
	if err != nil {
		return err
	}
	request := binary.BigEndian.AppendUint32(nil, code)
	request = binary.BigEndian.AppendUint32(request, argument)
	if _, err := conn.Write(request); err != nil {
		return errors.Join(err, conn.Close())
	}
	var result uint32
	err = errors.Join(binary.Read(conn, binary.BigEndian, &result), conn.Close())
	if err == nil && result != 0 {
		err = fmt.Errorf("control command %d: result %#x", code, result)
	}
	return err
}
