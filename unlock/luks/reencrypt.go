package luks

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"keywright.dev/kms/secret"
)

// ErrLineFeed is returned where a key cannot be given to a reencryption, which
// reads one a line.
var ErrLineFeed = errors.New("the key has a line feed, or more than 512 bytes, so that cryptsetup cannot read it as a line: rekey the volume first")

// maxLine is how much of a line cryptsetup reads.
const maxLine = 512

// hotzone is how much is reencrypted between two writes of the header. Where
// cryptsetup chooses it, a small volume is done in one.
const hotzone = "32M"

// hotzonePatience is what a slow disk may take for that, on which a reencryption
// that is asked to end first finishes: one that is killed has to be recovered.
const hotzonePatience = 2 * time.Minute

// BeginReencryption writes into the header that the volume gets a new volume key,
// and changes no data yet. It takes the key of every keyslot that there is: where
// one is missing or wrong that is [ErrWrongKey], and nothing was changed. The
// keyslots have other numbers afterwards, which tokens follow, and normal
// priority. All keys must be random secrets.
func (c Cryptsetup) BeginReencryption(ctx context.Context, device string, keys []SlotKey) error {
	lines, err := linesOf(keys)
	if err != nil {
		return fmt.Errorf("beginning the reencryption of %s: %w", device, err)
	}
	err = c.run(ctx, "reencrypt", device, input{stdin: lines},
		"--batch-mode", "--init-only", "--resilience", "checksum",
		"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", strconv.Itoa(minIterations), device)
	return wrongKey(err)
}

// CheckReencryptionKeys returns what [Cryptsetup.BeginReencryption] would refuse
// keys for.
func CheckReencryptionKeys(keys []SlotKey) error {
	_, err := linesOf(keys)
	return err
}

// linesOf returns the keys in the order in which cryptsetup asks for them.
func linesOf(keys []SlotKey) ([]secret.Bytes, error) {
	keys = slices.Clone(keys)
	slices.SortFunc(keys, func(a, b SlotKey) int { return cmp.Compare(a.Slot, b.Slot) })
	var lines []secret.Bytes
	for _, k := range keys {
		if err := errors.Join(checkKey(k.Key), checkSlot(k.Slot)); err != nil {
			return nil, fmt.Errorf("keyslot %d: %w", k.Slot, err)
		}
		if k.Key.Len() > maxLine || bytes.ContainsRune(k.Key.Expose(), '\n') {
			return nil, fmt.Errorf("keyslot %d: %w", k.Slot, ErrLineFeed)
		}
		lines = append(lines, k.Key, secret.New([]byte("\n")))
	}
	return lines, nil
}

// Resumption is how a reencryption is gone on with.
type Resumption struct {
	// Closed says that the volume is not open. Of an open one, cryptsetup finds
	// the mapping by itself.
	Closed bool
	// Progress is called as it goes on; nil: nobody is told.
	Progress func(Progress)
}

// ErrCut is returned where a reencryption was cut in the middle of a part of the
// data. [Cryptsetup.RecoverReencryption] mends that, as opening the volume does.
var ErrCut = errors.New("the reencryption was cut and needs to be recovered")

// RecoverReencryption mends the part of the data that a reencryption was cut in.
// The volume must not be open: its mapping would go on to read that part with the
// other key.
func (c Cryptsetup) RecoverReencryption(ctx context.Context, device string, key secret.Bytes) error {
	if err := checkKey(key); err != nil {
		return fmt.Errorf("recovering the reencryption of %s: %w", device, err)
	}
	return wrongKey(c.run(ctx, "repair", device, input{stdin: []secret.Bytes{key}}, "--batch-mode", "--key-file", "-", device))
}

// ResumeReencryption goes on with a reencryption to its end, or until ctx is done:
// then it can be resumed. One that was cut and has not been recovered is [ErrCut]. The
// key is of any keyslot. One of which no data is left ([Under.All]) must not be resumed:
// it would lose the data.
func (c Cryptsetup) ResumeReencryption(ctx context.Context, device string, key secret.Bytes, r Resumption) error {
	if err := checkKey(key); err != nil {
		return fmt.Errorf("reencrypting %s: %w", device, err)
	}
	args := []string{
		"--batch-mode", "--resume-only", "--hotzone-size", hotzone,
		"--progress-json", "--progress-frequency", "1", "--key-file", "-", device,
	}
	if r.Closed {
		args = append(args, "--force-offline-reencrypt")
	}
	lines := &lineWriter{each: r.tell}
	err := wrongKey(c.run(ctx, "reencrypt", device, input{stdin: []secret.Bytes{key}, stdout: lines, patience: hotzonePatience}, args...))
	var failed *CommandError
	if errors.As(err, &failed) && strings.Contains(failed.Detail, "requires reencryption recovery") {
		return fmt.Errorf("%w: %w", ErrCut, err)
	}
	return err
}

// tell passes by what is no progress: it must not stop a reencryption.
func (r Resumption) tell(line []byte) {
	p, err := ParseProgress(line)
	if err == nil && r.Progress != nil {
		r.Progress(p)
	}
}

// lineWriter calls each with every line that was written, without its end, and
// drops what of a line is longer than any progress.
type lineWriter struct {
	each func(line []byte)
	line []byte
}

var _ io.Writer = (*lineWriter)(nil)

func (w *lineWriter) Write(p []byte) (int, error) {
	for _, b := range p {
		switch {
		case b == '\n':
			w.each(w.line)
			w.line = w.line[:0]
		case len(w.line) <= maxProgress:
			w.line = append(w.line, b)
		}
	}
	return len(p), nil
}
