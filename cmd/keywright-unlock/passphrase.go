package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"keywright.dev/kms/secret"
)

// maxPassphrase bounds a passphrase in bytes; it is what cryptsetup is given
// through a pipe.
const maxPassphrase = 4096

// passphrase returns where passphrases come from.
func (f *enrollFlags) passphrase(h host) func(ctx context.Context, device string) (secret.Bytes, error) {
	if f.fd == noFD {
		return h.prompt
	}
	given := false
	return func(_ context.Context, device string) (secret.Bytes, error) {
		if given {
			return secret.Bytes{}, fmt.Errorf("the given passphrase does not open %s", device)
		}
		given = true
		return readFD(f.fd)
	}
}

// readFD reads a descriptor to its end.
func readFD(fd int) (secret.Bytes, error) {
	file := os.NewFile(uintptr(fd), "passphrase")
	if file == nil {
		return secret.Bytes{}, fmt.Errorf("descriptor %d is none", fd)
	}
	defer file.Close()
	text, err := secret.Read(file, maxPassphrase+1)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("reading the passphrase from descriptor %d: %w", fd, err)
	}
	return trimmed(text)
}

// trimmed is line, but refuses an empty one.
func trimmed(text secret.Bytes) (secret.Bytes, error) {
	passphrase := line(text)
	if passphrase.Len() == 0 {
		return secret.Bytes{}, errors.New("the passphrase is empty")
	}
	return passphrase, nil
}

// line takes one line feed off the end.
func line(text secret.Bytes) secret.Bytes {
	defer text.Wipe()
	return secret.Copy(bytes.TrimSuffix(text.Expose(), []byte("\n")))
}

// prompt asks on the terminal, without showing what is typed.
func prompt(ctx context.Context, device string) (secret.Bytes, error) {
	text, err := ask(ctx, "Passphrase of "+device+": ")
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("asking for the passphrase of %s: %w: it can be given with --passphrase-fd", device, err)
	}
	return trimmed(text)
}

func ask(ctx context.Context, question string) (secret.Bytes, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer tty.Close()
	return askTerminal(ctx, tty, question)
}

// askTerminal asks on a terminal that was opened for it.
func askTerminal(ctx context.Context, tty *os.File, question string) (secret.Bytes, error) {
	show, err := hideInput(tty)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer show()
	stop := context.AfterFunc(ctx, func() { _ = tty.SetReadDeadline(time.Now()) })
	defer stop()
	fmt.Fprint(tty, question)
	defer fmt.Fprintln(tty)
	return readLine(tty)
}

// hideInput turns echo off until show is called, which forgets what was half typed.
// It leaves the file to the poller, so that a signal can end the reading.
func hideInput(tty *os.File) (show func(), err error) {
	raw, err := tty.SyscallConn()
	if err != nil {
		return nil, err
	}
	var old *unix.Termios
	set := func(fd uintptr) {
		if old, err = unix.IoctlGetTermios(int(fd), unix.TCGETS); err != nil {
			return
		}
		quiet := *old
		quiet.Lflag &^= unix.ECHO
		quiet.Lflag |= unix.ICANON
		err = unix.IoctlSetTermios(int(fd), unix.TCSETS, &quiet)
	}
	if controlErr := raw.Control(set); controlErr != nil {
		return nil, controlErr
	}
	if err != nil {
		return nil, err
	}
	return func() {
		_ = raw.Control(func(fd uintptr) { _ = unix.IoctlSetTermios(int(fd), unix.TCSETSF, old) })
	}, nil
}

// readLine reads what the terminal gives for one line, into one buffer.
func readLine(tty *os.File) (secret.Bytes, error) {
	buffer := make([]byte, maxPassphrase+1)
	n, err := tty.Read(buffer)
	if err != nil {
		clear(buffer)
		return secret.Bytes{}, err
	}
	return secret.New(buffer[:n]), nil
}
