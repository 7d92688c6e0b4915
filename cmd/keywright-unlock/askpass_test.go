package main

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"keywright.dev/kms/secret"
)

func askpass(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "askpass")
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755))
	return path
}

// hostWith is a host with consoles that nothing else is asked on.
func hostWith(consoles ...string) host {
	return host{consoles: func() []string { return consoles }}
}

func TestAskpassIsGivenTheQuestion(t *testing.T) {
	said := filepath.Join(t.TempDir(), "said")
	got, err := hostWith().askWith(askpass(t, `printf %s "$1" >`+said+`; printf 'sesame'`))(t.Context(), "Please unlock disk root: ")
	require.NoError(t, err)
	assert.Equal(t, "sesame", string(got.Expose()))
	question, err := os.ReadFile(said)
	require.NoError(t, err)
	assert.Equal(t, "Please unlock disk root: ", string(question))
}

func TestAskpassThatFailsIsAnError(t *testing.T) {
	_, err := hostWith().askWith(askpass(t, "echo half; exit 3"))(t.Context(), "?")
	require.ErrorContains(t, err, "exit status 3")
	assert.NotContains(t, err.Error(), "half")
	got, err := hostWith().askWith(askpass(t, "exit 0"))(t.Context(), "?")
	require.NoError(t, err)
	assert.Zero(t, got.Len(), "only Enter was pressed")
	_, err = hostWith().askWith("/nonexistent")(t.Context(), "?")
	require.ErrorIs(t, err, os.ErrNotExist)
}

// never is a program that asks and is not answered; asking exists once it does. It
// is deaf to signals, as the distribution's.
func never(t *testing.T) (program, asking string) {
	t.Helper()
	asking = filepath.Join(t.TempDir(), "never")
	return askpass(t, "trap '' TERM INT HUP; mkfifo "+asking+"; read -r line <"+asking), asking
}

func exists(path string) func() bool {
	return func() bool { _, err := os.Stat(path); return err == nil }
}

// terminal is a console, and the person at it.
func terminal(t *testing.T) (path string, person *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = person.Close() })
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	require.NoError(t, unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0))
	path = "/dev/pts/" + strconv.Itoa(n)
	// Held open, so that what was said is not lost between two questions.
	held, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = held.Close() })
	return path, person
}

// reads reads what a console shows until it ends with text.
func reads(t *testing.T, person *os.File, text string) {
	t.Helper()
	var shown []byte
	for !strings.HasSuffix(string(shown), text) {
		buffer := make([]byte, 256)
		n, err := person.Read(buffer)
		require.NoError(t, err)
		shown = append(shown, buffer[:n]...)
	}
}

func TestEveryConsoleIsAskedAndTheFirstAnswerCounts(t *testing.T) {
	first, _ := terminal(t)
	second, person := terminal(t)
	program, _ := never(t)
	type result struct {
		passphrase secret.Bytes
		err        error
	}
	done := make(chan result, 1)
	go func() {
		passphrase, err := hostWith("/nonexistent", first, second).askWith(program)(t.Context(), "Please unlock disk root: ")
		done <- result{passphrase, err}
	}()
	reads(t, person, "Please unlock disk root: ")
	_, err := person.WriteString("sesame\n")
	require.NoError(t, err)
	got := <-done
	require.NoError(t, got.err)
	assert.Equal(t, "sesame", string(got.passphrase.Expose()))
	reads(t, person, "\r\n")
	echo, err := unix.IoctlGetTermios(int(person.Fd()), unix.TCGETS)
	require.NoError(t, err)
	assert.NotZero(t, echo.Lflag&unix.ECHO, "the terminal is as it was")
}

func TestQuestionIsTakenFromEveryConsole(t *testing.T) {
	console, person := terminal(t)
	program, asking := never(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := hostWith(console).askWith(program)(ctx, "?")
		done <- err
	}()
	reads(t, person, "?")
	require.Eventually(t, exists(asking), time.Minute, time.Millisecond)
	// From here on the person also sees what becomes of what was typed (tty_ioctl(4)).
	require.NoError(t, unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCPKT, 1))
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	next, err := os.OpenFile(console, os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	defer next.Close()
	_, err = next.WriteString("login: ")
	require.NoError(t, err)
	assert.True(t, flushed(t, person, "login: "), "what was half typed is not what the next one reads")
}

// flushed reads what a console shows until text, and tells whether the input was
// flushed before.
func flushed(t *testing.T, person *os.File, text string) bool {
	t.Helper()
	packet, was := make([]byte, 256), false
	for {
		n, err := person.Read(packet)
		require.NoError(t, err)
		was = was || packet[0]&unix.TIOCPKT_FLUSHREAD != 0
		if strings.HasSuffix(string(packet[1:n]), text) {
			return was
		}
	}
}
