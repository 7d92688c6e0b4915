package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"keywright.dev/kms/secret"
)

const (
	// askpassGrace is what a program that was ended may leave its output open.
	askpassGrace = 2 * time.Second
	// plymouth has every console, where it runs.
	plymouth = "/bin/plymouth"
)

// asked is what one place to type at came to.
type asked struct {
	passphrase secret.Bytes
	err        error
}

// askWith asks with a program of the distribution's, which knows the splash
// screen and the console, and by itself on the consoles that the program leaves
// out. The first answer counts.
func (h host) askWith(program string) func(ctx context.Context, question string) (secret.Bytes, error) {
	return func(ctx context.Context, question string) (secret.Bytes, error) {
		asking, stop := context.WithCancel(ctx)
		defer stop()
		var others []string
		if exec.CommandContext(ctx, plymouth, "--ping").Run() != nil {
			others = h.consoles()
		}
		answers := make(chan asked, 1+len(others))
		go func() {
			passphrase, err := askProgram(asking, program, question)
			answers <- asked{passphrase, err}
		}()
		for _, path := range others {
			go func() { answers <- askOn(asking, path, question) }()
		}
		return first(answers, 1+len(others), stop)
	}
}

// errNoConsole means that nobody can type there.
var errNoConsole = errors.New("it takes no input")

// first returns what comes first, and waits until no question is left.
func first(answers <-chan asked, n int, stop func()) (secret.Bytes, error) {
	var result *asked
	for range n {
		a := <-answers
		switch {
		case errors.Is(a.err, errNoConsole):
		case result == nil:
			result = &a
			stop()
		default:
			a.passphrase.Wipe()
		}
	}
	return result.passphrase, result.err
}

// askProgram asks with a program, which prints what was typed. A question that is
// taken away leaves the terminal, and the kernel's messages, as they were.
func askProgram(ctx context.Context, program, question string) (secret.Bytes, error) {
	restore := keepTerminal(os.Stdin)
	defer restore()
	cmd := exec.CommandContext(ctx, program, question)
	cmd.Stdin, cmd.Stderr = os.Stdin, os.Stderr
	// It blocks signals, and may have a helper that asks.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = askpassGrace
	out, err := cmd.StdoutPipe()
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("asking for a passphrase: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return secret.Bytes{}, fmt.Errorf("asking for a passphrase: %w", err)
	}
	text, readErr := secret.Read(out, maxPassphrase+1)
	if err := errors.Join(readErr, cmd.Wait()); err != nil {
		text.Wipe()
		if ended := ctx.Err(); ended != nil {
			err = ended // not that the program was killed for it
			fmt.Fprintln(os.Stderr)
			_, _ = unix.Klogctl(unix.SYSLOG_ACTION_CONSOLE_ON, nil)
		}
		return secret.Bytes{}, fmt.Errorf("asking for a passphrase with %s: %w", program, err)
	}
	return line(text), nil
}

// askOn asks on a console.
func askOn(ctx context.Context, path, question string) asked {
	console, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return asked{err: errNoConsole}
	}
	defer console.Close()
	text, err := askTerminal(ctx, console, "\r\n"+question)
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case err != nil:
		err = errNoConsole
	default:
		return asked{passphrase: line(text)}
	}
	text.Wipe()
	return asked{err: err}
}

// keepTerminal returns what puts a terminal's settings back and forgets what was
// half typed; nothing where the file is none.
func keepTerminal(f *os.File) (restore func()) {
	fd := int(f.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return func() {}
	}
	return func() { _ = unix.IoctlSetTermios(fd, unix.TCSETSF, old) }
}
