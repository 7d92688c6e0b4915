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

// askpassGrace is what a program that asks may take to end.
const askpassGrace = 2 * time.Second

// askWith asks with a program of the distribution's, which prints what was typed:
// it knows the splash screen and every console. A question that is taken away
// leaves the terminal as it was.
func askWith(program string) func(ctx context.Context, question string) (secret.Bytes, error) {
	return func(ctx context.Context, question string) (secret.Bytes, error) {
		restore := keepTerminal(os.Stdin)
		defer restore()
		cmd := exec.CommandContext(ctx, program, question)
		cmd.Stdin, cmd.Stderr = os.Stdin, os.Stderr
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
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
			return secret.Bytes{}, fmt.Errorf("asking for a passphrase with %s: %w", program, err)
		}
		return trimmed(text)
	}
}

// keepTerminal returns what puts a terminal's settings back; nothing where the
// file is none.
func keepTerminal(f *os.File) (restore func()) {
	fd := int(f.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return func() {}
	}
	return func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, old) }
}
