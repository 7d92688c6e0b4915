// Package process runs programs as children that die when this process does,
// so that a test or the demo that is killed leaves nothing behind.
package process

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

const (
	// pipeDelay is how long a dead child's pipes are read on, should a
	// grandchild still hold them.
	pipeDelay = 2 * time.Second
	// wordsKept is how many lines of its standard error an error shows.
	wordsKept = 10
)

// Process is a running child.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed once the child has been waited for
	err  error         // what Wait said; valid once done is closed
	said bytes.Buffer  // its standard error; valid once done is closed
}

// Start starts cmd, whose Stderr is taken.
func Start(cmd *exec.Cmd) (*Process, error) {
	p := &Process{cmd: cmd, done: make(chan struct{})}
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
func (p *Process) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(p.done)
	err := p.cmd.Start()
	started <- err
	if err == nil {
		p.err = p.cmd.Wait()
	}
}

// PID returns the process id of the child.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done returns a channel that is closed once the child has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns what a child that is done ended with; nil for exit code 0.
func (p *Process) Err() error { return p.err }

// LastWords returns the end of what a child that is done said on its standard
// error.
func (p *Process) LastWords() string {
	lines := strings.Split(strings.TrimRight(p.said.String(), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-wordsKept):], "\n")
}

// Kill ends the child with SIGKILL and waits for it. It may be called again.
func (p *Process) Kill() {
	// The only error is that it has ended.
	_ = p.cmd.Process.Kill()
	<-p.done
}

// End gives the child the time to end by itself, then kills it.
func (p *Process) End(grace time.Duration) {
	select {
	case <-p.done:
	case <-time.After(grace):
		p.Kill()
	}
}

// Stop asks the child to end with SIGTERM, and gives it the time to.
func (p *Process) Stop(grace time.Duration) {
	// The only error is that it has ended.
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	p.End(grace)
}

// Run runs a program to its end. Its error has what the program said.
func Run(ctx context.Context, cmd *exec.Cmd) error {
	p, err := Start(cmd)
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("running %s: %w: run test/setup", cmd.Args[0], err)
	}
	if err != nil {
		return fmt.Errorf("running %s: %w", cmd.Args[0], err)
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("running %s: %w", cmd.Args[0], ctx.Err())
	}
	if p.err != nil {
		return fmt.Errorf("running %s: %w: %s", strings.Join(cmd.Args, " "), p.err, p.LastWords())
	}
	return nil
}
