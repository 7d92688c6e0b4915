package vm

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"

	"keywright.dev/test/process"
)

const qemu = "qemu-system-x86_64"

// Run is a machine that was started.
type Run struct {
	name    string
	qemu    *process.Process
	swtpm   *process.Process // nil without a TPM
	control *control
	input   io.WriteCloser
	silent  bool // the network is
	console *console
	shown   *os.File // where it is written beside
	killed  atomic.Bool
	done    chan struct{} // closed once all has ended
}

// launch starts swtpm and QEMU and ties their ends together.
func (m Machine) launch(ctx context.Context) (*Run, error) {
	r := &Run{
		name:    m.Name,
		console: newConsole(m.Name, m.patience()),
		done:    make(chan struct{}),
	}
	cmd := exec.CommandContext(ctx, qemu, m.args()...)
	var err error
	if r.shown, err = m.shown(); err != nil {
		return nil, fmt.Errorf("showing the console: %w", err)
	}
	cmd.Stdout = io.MultiWriter(r.console, r.shown)
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("making the console's input: %w", err)
	}
	r.input = input
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("making QEMU's control channel: %w", err)
	}
	defer theirs.Close()
	cmd.ExtraFiles = []*os.File{theirs}
	if r.control, err = openControl(ours, m.patience()); err != nil {
		return nil, err
	}
	if m.TPM != nil {
		swtpm, channel, err := m.TPM.startSwtpm(ctx)
		if err != nil {
			return nil, err
		}
		// QEMU holds the only end that stays open: swtpm ends with it.
		defer channel.Close()
		r.swtpm = swtpm
		cmd.ExtraFiles = append(cmd.ExtraFiles, channel)
	}
	if r.qemu, err = process.Start(cmd); err != nil {
		return nil, fmt.Errorf("running %s: %w: run test/setup", qemu, err)
	}
	go r.finish()
	err = r.begin(ctx, m.Network)
	if err == nil {
		err = m.arrive(ctx, r)
	}
	if err != nil && m.Incoming != "" {
		err = fmt.Errorf("loading %s: %w", m.Incoming, err)
	}
	return r, err
}

// begin has the guest start. A QEMU that ended says more than its control channel.
func (r *Run) begin(ctx context.Context, n Network) error {
	err := r.SetNetwork(ctx, n)
	if err == nil {
		err = r.control.execute(ctx, "cont", nil)
	}
	if err == nil {
		return nil
	}
	r.qemu.Kill()
	<-r.done
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %s: %w", ErrEnded, r.lastWords(), err)
}

// consoleVariable names a folder in which the consoles of all machines are
// written while they run, for whoever wants to watch.
const consoleVariable = "KEYWRIGHT_VM_CONSOLES"

// shown is where the console is written beside.
func (m Machine) shown() (*os.File, error) {
	dir := os.Getenv(consoleVariable)
	if dir == "" {
		return os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	}
	return os.OpenFile(filepath.Join(dir, m.Name+".log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
}

// finish waits for the processes to end, QEMU first.
func (r *Run) finish() {
	<-r.qemu.Done()
	if r.swtpm != nil {
		r.swtpm.End(swtpmGrace)
	}
	// Nobody reads it any more.
	_ = errors.Join(r.input.Close(), r.shown.Close(), r.control.Close())
	r.console.end()
	close(r.done)
}

// Expect waits for a whole line that contains one of the markers and returns
// it. It looks at what was printed after the last match. When none comes its
// error wraps [ErrEnded], [ErrSilent] or the context's, with the last lines.
func (r *Run) Expect(ctx context.Context, markers ...string) (string, error) {
	return r.console.await(ctx, fmt.Sprintf("%q", markers), func(text string) (string, int) {
		return findLine(text, markers)
	})
}

// Prompt waits for a text that may stand in an unfinished line, as prompts do.
// Its errors are those of [Run.Expect].
func (r *Run) Prompt(ctx context.Context, prompt string) error {
	_, err := r.console.await(ctx, fmt.Sprintf("the prompt %q", prompt), func(text string) (string, int) {
		return findPrompt(text, prompt)
	})
	return err
}

// Send types on the console. A prompt for a passphrase may drop what comes
// before it has turned the echo off: see [Run.Answer].
func (r *Run) Send(text []byte) error {
	if _, err := r.input.Write(text); err != nil {
		return fmt.Errorf("typing on the console of %s: %w%s", r.name, err, r.console.tail())
	}
	return nil
}

// Receive waits for a file that the guest hands over with `give NAME FILE`.
func (r *Run) Receive(ctx context.Context, name string) ([]byte, error) {
	if _, err := r.Expect(ctx, "give begin "+name); err != nil {
		return nil, err
	}
	var encoded strings.Builder
	for {
		line, err := r.Expect(ctx, "")
		if err != nil {
			return nil, err
		}
		if digest, end := strings.CutPrefix(line, "give end "+name+" "); end {
			return decodeGiven(name, encoded.String(), digest)
		}
		encoded.WriteString(line)
	}
}

func decodeGiven(name, encoded, digest string) ([]byte, error) {
	content, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, fmt.Errorf("receiving %s from the guest: %w", name, err)
	}
	sum := sha256.Sum256(content)
	if hex.EncodeToString(sum[:]) != digest {
		return nil, fmt.Errorf("receiving %s from the guest: its digest is not %s: the console garbled it", name, digest)
	}
	return content, nil
}

// Log returns what the guest printed, at most the last 4 MiB.
func (r *Run) Log() string { return r.console.log() }

// Wait waits for the guest to end: nil when it powered off, rebooted or was
// killed by [Run.Kill].
func (r *Run) Wait(ctx context.Context) error {
	select {
	case <-r.done:
	case <-ctx.Done():
		return fmt.Errorf("awaiting the end of %s: %w%s", r.name, ctx.Err(), r.console.tail())
	}
	if r.qemu.Err() == nil || r.killed.Load() {
		return nil
	}
	return fmt.Errorf("running %s: %w: %s%s", r.name, r.qemu.Err(), r.lastWords(), r.console.tail())
}

// lastWords returns what the processes said, once they ended.
func (r *Run) lastWords() string {
	words := r.qemu.LastWords()
	if r.swtpm != nil {
		words += " " + r.swtpm.LastWords()
	}
	return words
}

// Kill cuts the machine's power and waits until nothing of it is left. It may
// be called again, and after the guest ended.
func (r *Run) Kill() {
	r.killed.Store(true)
	r.qemu.Kill()
	<-r.done
}
