package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// Why a console did not show what was awaited.
var (
	// ErrEnded says that the guest ended first.
	ErrEnded = errors.New("the guest ended")
	// ErrSilent says that nothing was printed for longer than [Machine.Patience].
	ErrSilent = errors.New("the console fell silent")
)

const (
	// tailLines is how much of the console an error shows.
	tailLines = 30
	// consoleLimit bounds the text that is kept, in bytes.
	consoleLimit = 4 << 20
)

// console collects what a guest prints and finds markers in it.
type console struct {
	name     string
	patience time.Duration

	mu      sync.Mutex
	text    []byte
	seen    int           // text[:seen] has been matched
	changed chan struct{} // closed and replaced with every change
	ended   bool
}

func newConsole(name string, patience time.Duration) *console {
	return &console{name: name, patience: patience, changed: make(chan struct{})}
}

// Write takes what the guest printed. It never fails.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text = append(c.text, bytes.ReplaceAll(p, []byte("\r"), nil)...)
	if extra := len(c.text) - consoleLimit; extra > 0 {
		c.text = slices.Delete(c.text, 0, extra)
		c.seen = max(0, c.seen-extra)
	}
	c.wake()
	return len(p), nil
}

// end says that nothing more comes.
func (c *console) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	c.wake()
}

func (c *console) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// log returns all text kept, without terminal control sequences.
func (c *console) log() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return plain(string(c.text))
}

// finder looks for a match in a text; end is where the text goes on after it, 0
// when there is none.
type finder func(text string) (match string, end int)

// await returns what find finds in the text after the last match, once it
// does. what names it in errors.
func (c *console) await(ctx context.Context, what string, find finder) (string, error) {
	for {
		match, found, changed := c.look(find)
		if found {
			return match, nil
		}
		if err := c.waitChange(ctx, changed); err != nil {
			return "", fmt.Errorf("awaiting %s on the console of %s: %w%s", what, c.name, err, c.tail())
		}
	}
}

// look searches once. It is worth searching again when the channel is closed;
// there is none when the guest has ended.
func (c *console) look(find finder) (match string, found bool, changed <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if match, end := find(string(c.text[c.seen:])); end > 0 {
		c.seen += end
		return match, true, nil
	}
	if c.ended {
		return "", false, nil
	}
	return "", false, c.changed
}

func (c *console) waitChange(ctx context.Context, changed <-chan struct{}) error {
	if changed == nil {
		return ErrEnded
	}
	silence := time.NewTimer(c.patience)
	defer silence.Stop()
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-silence.C:
		return fmt.Errorf("%w for %s", ErrSilent, c.patience)
	}
}

// tail returns the last lines for an error's end.
func (c *console) tail() string {
	return "; its last lines:\n" + lastLines(c.log(), tailLines)
}

// findLine finds the first whole line that contains any of the markers.
func findLine(text string, markers []string) (line string, end int) {
	for rest := text; ; {
		line, after, whole := strings.Cut(rest, "\n")
		if !whole {
			return "", 0
		}
		for _, marker := range markers {
			if strings.Contains(line, marker) {
				return plain(line), len(text) - len(after)
			}
		}
		rest = after
	}
}

// findPrompt finds the marker, even in a line that goes on.
func findPrompt(text, marker string) (string, int) {
	before, _, found := strings.Cut(text, marker)
	if !found {
		return "", 0
	}
	return marker, len(before) + len(marker)
}

var controlSequence = regexp.MustCompile(`\x1b(\[[0-9;?=]*[A-Za-z]|[()][A-Z0-9]|c)`)

func plain(text string) string { return controlSequence.ReplaceAllString(text, "") }

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
