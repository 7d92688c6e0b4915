package keyio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"keywright.dev/kms/exchange"
)

// Files are where a job reads and writes: paths, or fd:N for a file descriptor
// that the caller opened.
type Files struct {
	Input  string // empty: standard input
	Output string // empty: standard output; a path is of a new file
	Key    string // likewise, of data-key alone
}

// RunFiles carries the job out on files. What is to be written to is there before
// anything is asked; a file that was made is removed where the job fails, but for
// that of a batch with what was answered until then.
func (j Job) RunFiles(ctx context.Context, f Files, call Call) (tally Tally, err error) {
	single := j.Operation == exchange.KeyDataKey && !j.Batch
	switch {
	case single && f.Key == "":
		return tally, fmt.Errorf("%w: say with --key-output FILE where the key goes; its wrapped form goes to the output", ErrInput)
	case !single && f.Key != "":
		return tally, fmt.Errorf("%w: --key-output is for one data key; a batch has the keys in its lines", ErrInput)
	}
	var opened []*target
	defer func() {
		for _, t := range opened {
			err = errors.Join(err, t.end(err == nil, j.Batch && tally.Items > 0))
		}
	}()
	if f.Input != "" {
		input, err := openInput(f.Input)
		if err != nil {
			return tally, fmt.Errorf("reading the input: %w", err)
		}
		defer input.Close()
		j.In = input
	}
	for _, o := range []struct {
		path string
		to   *io.Writer
	}{{f.Output, &j.Out}, {f.Key, &j.Key}} {
		if o.path == "" {
			continue
		}
		t, err := openTarget(o.path)
		if err != nil {
			return tally, fmt.Errorf("writing the result: %w", err)
		}
		opened = append(opened, t)
		*o.to = t
	}
	return j.Run(ctx, call)
}

// target is a file that is written to.
type target struct {
	*os.File
	made bool
}

// end closes the file; one that was made for a job that failed goes, unless it is
// to be kept.
func (t *target) end(good, keep bool) error {
	if !t.made {
		return t.Close()
	}
	var err error
	if good || keep {
		err = t.Sync()
	}
	err = errors.Join(err, t.Close())
	if !keep && (!good || err != nil) {
		err = errors.Join(err, os.Remove(t.Name()))
	}
	return err
}

func openInput(path string) (*os.File, error) {
	if fd, ok, err := descriptor(path); ok {
		return fd, err
	}
	return os.Open(path)
}

func openTarget(path string) (*target, error) {
	if fd, ok, err := descriptor(path); ok {
		return &target{File: fd}, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	return &target{f, true}, err
}

// descriptor opens fd:N.
func descriptor(path string) (f *os.File, ok bool, err error) {
	number, ok := strings.CutPrefix(path, "fd:")
	if !ok {
		return nil, false, nil
	}
	n, err := strconv.ParseUint(number, 10, 31)
	if err != nil {
		return nil, true, fmt.Errorf("%w: a file descriptor is written fd:N", ErrInput)
	}
	f = os.NewFile(uintptr(n), path)
	if f == nil {
		return nil, true, fmt.Errorf("%w: there is no %s", ErrInput, path)
	}
	if _, err := f.Stat(); err != nil {
		return nil, true, fmt.Errorf("%w: %s is not open", ErrInput, path)
	}
	return f, true, nil
}
