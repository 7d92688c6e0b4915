package vm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpmutil"
)

// Commands of swtpm's control channel (swtpm_ioctls(3)).
const (
	controlInit      = 0x02
	controlShutdown  = 0x03
	controlSetDataFD = 0x10
)

const (
	// swtpmGrace is how long swtpm may take to end once its channel closed.
	swtpmGrace = 5 * time.Second
	// tpmDeadline bounds one command; RSA keys take seconds on a busy host.
	tpmDeadline = 60 * time.Second
)

// startSwtpm starts swtpm on the TPM's state and returns the client's end of
// its control channel. swtpm ends when that end is closed, wherever it is held
// by then. A socket pair has no path that could be too long or left behind.
func (t *TPM) startSwtpm(ctx context.Context) (*process, *os.File, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, nil, fmt.Errorf("starting swtpm for %s: %w", t.name, err)
	}
	defer theirs.Close()
	cmd := exec.CommandContext(ctx, "swtpm", "socket", "--tpm2", "--terminate",
		"--tpmstate", "dir="+t.state+",mode=0600", "--ctrl", "type=unixio,clientfd=3")
	cmd.ExtraFiles = []*os.File{theirs}
	swtpm, err := start(cmd)
	if err != nil {
		ours.Close()
		return nil, nil, fmt.Errorf("starting swtpm for %s: %w: run test/setup", t.name, err)
	}
	return swtpm, ours, nil
}

func socketPair() (ours, theirs *os.File, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("making a socket pair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs"), nil
}

// PoweredTPM is a TPM powered on for this process: go-tpm's transport.TPMCloser.
// It may be used by several goroutines.
type PoweredTPM struct {
	name  string
	swtpm *process

	mu      sync.Mutex
	control *net.UnixConn
	data    net.Conn
}

// PowerOn starts the TPM and gives it TPM2_Startup(CLEAR), as firmware does;
// its resetCount rises by one. Cancelling ctx ends it.
func (t *TPM) PowerOn(ctx context.Context) (*PoweredTPM, error) {
	swtpm, ours, err := t.startSwtpm(ctx)
	if err != nil {
		return nil, err
	}
	p := &PoweredTPM{name: t.name, swtpm: swtpm}
	if err := p.connect(ours); err != nil {
		swtpm.kill()
		return nil, fmt.Errorf("powering on %s: %w", t.name, err)
	}
	if err := p.Reset(); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// connect makes the channels' connections, and takes over the control file.
func (p *PoweredTPM) connect(control *os.File) error {
	defer control.Close()
	conn, err := net.FileConn(control)
	if err != nil {
		return err
	}
	p.control = conn.(*net.UnixConn)
	ours, theirs, err := socketPair()
	if err != nil {
		return errors.Join(err, p.control.Close())
	}
	defer ours.Close()
	defer theirs.Close()
	if p.data, err = net.FileConn(ours); err != nil {
		return errors.Join(err, p.control.Close())
	}
	return p.tell(controlSetDataFD, nil, syscall.UnixRights(int(theirs.Fd())))
}

// tell sends one control command and checks its result.
func (p *PoweredTPM) tell(command uint32, argument, rights []byte) error {
	request := append(binary.BigEndian.AppendUint32(nil, command), argument...)
	if err := p.control.SetDeadline(time.Now().Add(tpmDeadline)); err != nil {
		return err
	}
	if _, _, err := p.control.WriteMsgUnix(request, rights, nil); err != nil {
		return fmt.Errorf("sending swtpm's control command %#x: %w", command, err)
	}
	var result uint32
	if err := binary.Read(p.control, binary.BigEndian, &result); err != nil {
		return fmt.Errorf("reading the result of swtpm's control command %#x: %w", command, err)
	}
	if result != 0 {
		return fmt.Errorf("swtpm's control command %#x failed with %#x", command, result)
	}
	return nil
}

// Send carries one TPM command.
func (p *PoweredTPM) Send(input []byte) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.data.SetDeadline(time.Now().Add(tpmDeadline)); err != nil {
		return nil, err
	}
	return tpmutil.RunCommandRaw(p.data, input)
}

// Reset cuts the TPM's power without a TPM2_Shutdown and starts it again: PCRs
// return to their start values and resetCount rises.
func (p *PoweredTPM) Reset() error {
	p.mu.Lock()
	err := p.tell(controlInit, make([]byte, 4), nil)
	p.mu.Unlock()
	if err != nil {
		return fmt.Errorf("resetting %s: %w", p.name, err)
	}
	if _, err := (tpm2.Startup{StartupType: tpm2.TPMSUClear}).Execute(p); err != nil {
		return fmt.Errorf("resetting %s: %w", p.name, err)
	}
	return nil
}

// Close powers the TPM off; its state stays. It may be called again.
func (p *PoweredTPM) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	// swtpm may be gone already, which is what is wanted.
	_ = p.tell(controlShutdown, nil, nil)
	_ = p.data.Close()
	_ = p.control.Close()
	p.swtpm.end(swtpmGrace)
	return nil
}
