// Package keyio owns how commands read what the key API is to work on, and write
// what became of it: one item as bytes, or many as JSON lines.
//
// Invariants:
//   - Results come in the order of the items, a line for each.
//   - What is read and written of a secret is wiped here.
//
// It refuses to know who is asked, and how.
package keyio

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
)

// Call asks the service.
type Call func(ctx context.Context, r *exchange.KeyRequest) (*exchange.KeyAnswer, error)

// Job is what one command is to do.
type Job struct {
	Operation exchange.KeyOperation
	// Context and Size are those of an item that names none.
	Context string
	Size    uint16
	// Batch has lines read and written; see [Line].
	Batch bool
	In    io.Reader
	Out   io.Writer
	// Key takes the key that data-key makes, where it is no batch.
	Key io.Writer
}

// Tally counts items.
type Tally struct {
	Items, Failed int
}

// ErrInput means that the input cannot be meant; the text says what is wrong.
var ErrInput = errors.New("the input cannot be used")

// ItemError is why the service did not work on a single item.
type ItemError struct {
	Code, Detail string
}

// Error returns code and detail.
func (e *ItemError) Error() string { return e.Code + ": " + e.Detail }

// Run carries the job out.
func (j Job) Run(ctx context.Context, call Call) (Tally, error) {
	if j.Batch {
		return j.runBatch(ctx, call)
	}
	return Tally{Items: 1}, j.runSingle(ctx, call)
}

// maxWrapped bounds a wrapped form that is read, in bytes.
const maxWrapped = 24 << 10

func (j Job) runSingle(ctx context.Context, call Call) error {
	item, err := j.readItem()
	if err != nil {
		return err
	}
	request := exchange.KeyRequest{Items: []exchange.KeyItem{item}}
	defer request.Wipe()
	if err := item.Check(); err != nil {
		return fmt.Errorf("%w: %w", ErrInput, err)
	}
	answer, err := call(ctx, &request)
	if err != nil {
		return err
	}
	defer answer.Wipe()
	result := answer.Results[0]
	if result.Code != "" {
		return &ItemError{result.Code, result.Detail}
	}
	return j.writeResult(result)
}

// readItem reads a plaintext as it is, and a wrapped form without the line feed
// that may end it.
func (j Job) readItem() (exchange.KeyItem, error) {
	item := exchange.KeyItem{Context: j.Context}
	switch j.Operation {
	case exchange.KeyDataKey:
		item.Size = j.Size
		return item, nil
	case exchange.KeyWrap:
		plaintext, err := secret.Read(j.In, exchange.MaxKeyPlaintext)
		switch {
		case errors.Is(err, secret.ErrTooLong):
			return item, fmt.Errorf("%w: the plaintext has more than %d bytes: encrypt it with a data key", ErrInput, exchange.MaxKeyPlaintext)
		case err != nil:
			return item, fmt.Errorf("reading the plaintext: %w", err)
		case plaintext.Len() == 0:
			return item, fmt.Errorf("%w: the plaintext is empty", ErrInput)
		}
		item.Plaintext = plaintext
		return item, nil
	default:
		text, err := io.ReadAll(io.LimitReader(j.In, maxWrapped+1))
		if err != nil {
			return item, fmt.Errorf("reading the wrapped form: %w", err)
		}
		item.Wrapped = string(bytes.TrimRight(text, "\r\n"))
		if item.Wrapped == "" || len(text) > maxWrapped {
			return item, fmt.Errorf("%w: the wrapped form is empty, or longer than %d bytes", ErrInput, maxWrapped)
		}
		return item, nil
	}
}

func (j Job) writeResult(r exchange.KeyResult) error {
	if j.Operation == exchange.KeyDataKey {
		// The key first: a wrapped form alone is of use to nobody.
		if err := write(j.Key, r.Plaintext.Expose()); err != nil {
			return err
		}
	}
	if j.Operation == exchange.KeyUnwrap {
		return write(j.Out, r.Plaintext.Expose())
	}
	return write(j.Out, []byte(r.Wrapped+"\n"))
}

func write(w io.Writer, data []byte) error {
	if _, err := w.Write(data); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return nil
}
