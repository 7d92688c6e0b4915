package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// pipeDelay is how long a dead child's pipes are read on, should a grandchild
// still hold them.
const pipeDelay = 2 * time.Second

// process is a child that dies when this process does.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed once the child has been waited for
	err  error         // what Wait said; valid once done is closed
	said bytes.Buffer  // its standard error; valid once done is closed
}

// start runs cmd as a process.
func start(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, done: make(chan struct{})}
	cmd.Stderr = &p.said
	cmd.WaitDelay = pipeDelay
	// A group of its own, so that a Ctrl-C reaches the parent alone, which
	// then stops its children in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error, 1)
	go p.run(started)
	return p, <-started
}

// run holds its OS thread for the child's life: the kernel sends Pdeathsig when
// the thread that forked ends, not when the process does.
func (p *process) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(p.done)
	err := p.cmd.Start()
	started <- err
	if err == nil {
		p.err = p.cmd.Wait()
	}
}

// lastWords returns the end of what the process said, once it ended.
func (p *process) lastWords() string { return lastLines(p.said.String(), 10) }

// kill ends the process with SIGKILL and waits for it. It may be called again.
func (p *process) kill() {
	// The only error is that it has ended.
	_ = p.cmd.Process.Kill()
	<-p.done
}

// end gives the process the time to end by itself, then kills it.
func (p *process) end(grace time.Duration) {
	select {
	case <-p.done:
	case <-time.After(grace):
		p.kill()
	}
}

// command runs a program to its end. Its error has what the program said.
func command(ctx context.Context, cmd *exec.Cmd) error {
	p, err := start(cmd)
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("running %s: %w: run test/setup", cmd.Args[0], err)
	}
	if err != nil {
		return fmt.Errorf("running %s: %w", cmd.Args[0], err)
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		p.kill()
		return fmt.Errorf("running %s: %w", cmd.Args[0], ctx.Err())
	}
	if p.err != nil {
		return fmt.Errorf("running %s: %w: %s", strings.Join(cmd.Args, " "), p.err, p.lastWords())
	}
	return nil
}
