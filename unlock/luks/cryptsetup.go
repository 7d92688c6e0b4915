package luks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"keywright.dev/kms/secret"
)

// Cryptsetup runs the cryptsetup program, which alone changes headers: it
// locks, writes both copies in order and repairs a torn one. It works on block
// devices and plain files alike.
//
// Keys go through anonymous pipes, never through arguments, environment or
// files. The program's environment holds nothing but a fixed locale and PATH.
type Cryptsetup struct {
	// Path of the program; "cryptsetup" is looked up in PATH when empty.
	Path string
}

// CommandError is a run of cryptsetup that failed.
type CommandError struct {
	Action string // such as luksAddKey
	Device string
	Exit   int    // cryptsetup(8), "RETURN CODES"; -1 when it was killed
	Detail string // what the program said, one line
}

// Error says what was being done and what the exit code means.
func (e *CommandError) Error() string {
	return fmt.Sprintf("running cryptsetup %s on %s: %s (exit code %d): %s", e.Action, e.Device, exitMeaning(e.Exit), e.Exit, e.Detail)
}

// Is makes exit codes comparable to this package's sentinels.
func (e *CommandError) Is(target error) bool {
	return target == ErrBusy && e.Exit == exitBusy || target == ErrKilled && e.Exit == exitKilled
}

// ErrKilled is returned where a signal ended cryptsetup, which nobody asked to end:
// kill -9, or the kernel for want of memory.
var ErrKilled = errors.New("cryptsetup was killed")

// Exit codes of cryptsetup(8), and that of a process that a signal ended.
const (
	exitKilled     = -1
	exitParameters = 1
	exitPermission = 2
	exitMemory     = 3
	exitDevice     = 4
	exitBusy       = 5
)

func exitMeaning(code int) string {
	switch code {
	case exitKilled:
		return "it was killed"
	case exitParameters:
		return "wrong parameters"
	case exitPermission:
		return "no permission, or the key does not open a keyslot"
	case exitMemory:
		return "out of memory"
	case exitDevice:
		return "wrong device"
	case exitBusy:
		return "the device is busy or already exists"
	default:
		return "failed"
	}
}

const (
	// maxKey is what surely fits into a pipe, so that writing it never waits
	// for a reader. cryptsetup reads key files whole.
	maxKey = 4096
	// A cryptsetup that is asked to end is given this long to finish writing.
	endPatience = 10 * time.Second
	maxOutput   = 400
)

// input is what a run reads: keys, or text that is not secret.
type input struct {
	stdin []secret.Bytes // one behind the other
	third []secret.Bytes // file descriptor 3
	files []*os.File     // those behind it
	// stdout takes what the run says there; nil: nobody does.
	stdout io.Writer
	// patience is how long a run that is asked to end may finish writing; 0:
	// endPatience.
	patience time.Duration
}

// run runs one action on a device. args holds what follows the action.
func (c Cryptsetup) run(ctx context.Context, action, device string, in input, args ...string) error {
	stdin, err := pipe(in.stdin)
	if err != nil {
		return fmt.Errorf("running cryptsetup %s on %s: %w", action, device, err)
	}
	defer stdin.Close()
	third, err := pipe(in.third)
	if err != nil {
		return fmt.Errorf("running cryptsetup %s on %s: %w", action, device, err)
	}
	defer third.Close()

	program := c.Path
	if program == "" {
		program = "cryptsetup"
	}
	var said strings.Builder
	cmd := exec.CommandContext(ctx, program, append(strings.Fields(action), args...)...)
	cmd.Env = []string{"LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Stdin, cmd.ExtraFiles, cmd.Stdout, cmd.Stderr = stdin, append([]*os.File{third}, in.files...), in.stdout, &said
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = cmp.Or(in.patience, endPatience)
	return c.explain(ctx, cmd.Run(), action, device, said.String())
}

func (c Cryptsetup) explain(ctx context.Context, err error, action, device, said string) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("running cryptsetup %s on %s: %w", action, device, ctx.Err())
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return fmt.Errorf("running cryptsetup %s on %s: %w", action, device, err)
	}
	detail := strings.Join(strings.Fields(said), " ")
	return &CommandError{Action: action, Device: device, Exit: exit.ExitCode(), Detail: detail[:min(len(detail), maxOutput)]}
}

// pipe returns the reading end of a pipe that holds the secrets one behind the
// other and then ends.
func pipe(parts []secret.Bytes) (*os.File, error) {
	total := 0
	for _, part := range parts {
		total += part.Len()
	}
	if total > 2*maxKey {
		return nil, fmt.Errorf("%d bytes are too much for a pipe", total)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	for _, part := range parts {
		if _, err := w.Write(part.Expose()); err != nil {
			return nil, errors.Join(err, r.Close())
		}
	}
	return r, nil
}

// checkKey refuses what would change the meaning of a command: an empty key
// lets luksKillSlot go ahead without asking for one.
func checkKey(key secret.Bytes) error {
	if key.Len() == 0 || key.Len() > maxKey {
		return fmt.Errorf("a key of %d bytes is not between 1 and %d", key.Len(), maxKey)
	}
	return nil
}

func checkSlot(slot int) error {
	if slot < 0 || slot >= maxSlots {
		return fmt.Errorf("number %s is not between 0 and %d", strconv.Itoa(slot), maxSlots-1)
	}
	return nil
}

// Open opens a volume with whatever keyslot a passphrase opens, as the
// distribution does. A passphrase that opens none is [ErrWrongKey].
func (c Cryptsetup) Open(ctx context.Context, device, name string, o Options, passphrase secret.Bytes) error {
	args := []string{"--type", "luks2", "--key-file", "-"}
	if o.Discards {
		args = append(args, "--allow-discards")
	}
	if o.ReadOnly {
		args = append(args, "--readonly")
	}
	err := c.run(ctx, "open", device, input{stdin: []secret.Bytes{passphrase}}, append(args, "--", device, name)...)
	return wrongKey(err)
}
