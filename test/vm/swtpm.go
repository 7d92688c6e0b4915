package vm

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"keywright.dev/test/process"
)

// swtpmGrace is how long swtpm may take to end once its channel closed.
const swtpmGrace = 5 * time.Second

// startSwtpm starts swtpm on the TPM's state and returns the client's end of
// its control channel. swtpm ends when that end is closed, wherever it is held
// by then. A socket pair has no path that could be too long or left behind.
func (t *TPM) startSwtpm(ctx context.Context) (*process.Process, *os.File, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, nil, fmt.Errorf("starting swtpm for %s: %w", t.name, err)
	}
	defer theirs.Close()
	cmd := exec.CommandContext(ctx, "swtpm", "socket", "--tpm2", "--terminate",
		"--tpmstate", "dir="+t.state+",mode=0600", "--ctrl", "type=unixio,clientfd=3")
	cmd.ExtraFiles = []*os.File{theirs}
	swtpm, err := process.Start(cmd)
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
