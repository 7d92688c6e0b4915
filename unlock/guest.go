package unlock

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Harden keeps the process's memory out of swap, core dumps and the reach of
// other processes of its user. Its error says what could not be done; a program
// goes on without it.
func Harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("making the process undumpable: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbidding core dumps: %w", err)
	}
	// On fault: the runtime reserves far more than it uses.
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return fmt.Errorf("locking memory: %w", err)
	}
	return nil
}

// Reboot resets the machine at once. It writes nothing back: that can take for
// ever, and a boot has written nothing that counts.
func Reboot() error {
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART); err != nil {
		return fmt.Errorf("resetting the machine: %w", err)
	}
	return nil
}

// SystemClock is the kernel's clock.
type SystemClock struct{}

// Now returns a time whose differences are monotonic.
func (SystemClock) Now() time.Time { return time.Now() }

// Sleep waits; its error is that of ctx.
func (SystemClock) Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// After returns the deadline of a span from now; the zero time for a span of 0.
func After(clock Clock, span time.Duration) time.Time {
	if span == 0 || span > math.MaxInt64/2 {
		return time.Time{}
	}
	return clock.Now().Add(span)
}

const (
	activeConsoles = "/sys/class/tty/console/active"
	// stderrPatience is how long a standard error that nobody reads holds up a
	// line, in milliseconds.
	stderrPatience = 1000
)

// Consoles shows a line on standard error and on every active console that
// standard error is not.
func Consoles(line string) { onConsoles(line + "\n") }

// Question shows a question in a line of its own, which the answer ends, where
// [Consoles] shows lines.
func Question(question string) { onConsoles("\n" + question) }

func onConsoles(text string) {
	sayOn(os.Stderr, text)
	for _, path := range OtherConsoles() {
		show(path, text)
	}
}

// OtherConsoles returns the paths of the active consoles that standard error is
// not.
func OtherConsoles() []string {
	active, err := os.ReadFile(activeConsoles)
	if err != nil {
		return nil
	}
	var others []string
	names := strings.Fields(string(active))
	for i, name := range names {
		if path := filepath.Join("/dev", name); !isStderr(path, i == len(names)-1) {
			others = append(others, path)
		}
	}
	return others
}

// sayOn writes to a file unless nobody reads it: that must hold up no
// reset.
func sayOn(f *os.File, text string) {
	room := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLOUT}}
	if n, err := unix.Poll(room, stderrPatience); err == nil && n == 1 && room[0].Revents&unix.POLLOUT != 0 {
		fmt.Fprint(f, text)
	}
}

// isStderr tells whether standard error is the console, or /dev/console while
// that stands for it, which it does for the last of the active ones.
func isStderr(path string, last bool) bool {
	var stderr, console unix.Stat_t
	if unix.Fstat(int(os.Stderr.Fd()), &stderr) != nil || stderr.Mode&unix.S_IFMT != unix.S_IFCHR {
		return false
	}
	if last && stderr.Rdev == unix.Mkdev(5, 1) {
		return true
	}
	return unix.Stat(path, &console) == nil && console.Rdev == stderr.Rdev
}

// show writes to a console that may be gone or stopped: that must hold up
// nothing.
func show(path, text string) {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer func() { _ = unix.Close(fd) }()
	_, _ = unix.Write(fd, []byte("\r"+strings.ReplaceAll(text, "\n", "\r\n")))
}
