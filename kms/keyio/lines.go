package keyio

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"

	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
)

// Line is an item of a batch: a JSON object on a line of its own. Members that an
// operation does not take are left out.
type Line struct {
	Reference string `json:"reference"`
	// Context and Size are the job's where they are absent.
	Context *string `json:"context"`
	Size    *uint16 `json:"size"`
	// Plaintext is base64 (RFC 4648 section 4).
	Plaintext []byte `json:"plaintext"`
	Wrapped   string `json:"wrapped"`
}

// result is a line of what became of an item, but for its plaintext.
type result struct {
	Reference string `json:"reference"`
	Wrapped   string `json:"wrapped,omitzero"`
	Code      string `json:"code,omitzero"`
	Detail    string `json:"detail,omitzero"`
}

const (
	// maxLine is longer than any line that is taken, in bytes.
	maxLine = 64 << 10
	// itemRoom is what an item takes in a message beside what it holds, in bytes;
	// messageRoom what a message may hold of items.
	itemRoom    = 8
	messageRoom = exchange.MaxKeyMessage - 64
)

// batch is a call in the making.
type batch struct {
	request        exchange.KeyRequest
	plain, message int // bytes
}

// fits tells whether a call has room for one more item.
func (b *batch) fits(item exchange.KeyItem) bool {
	return len(b.request.Items) < exchange.MaxKeyItems &&
		b.plain+item.Plaintext.Len() <= exchange.MaxKeyTotal && b.message+roomOf(item) <= messageRoom
}

func (b *batch) add(item exchange.KeyItem) {
	b.request.Items = append(b.request.Items, item)
	b.plain += item.Plaintext.Len()
	b.message += roomOf(item)
}

func roomOf(item exchange.KeyItem) int {
	return itemRoom + len(item.Reference) + len(item.Context) + item.Plaintext.Len() + len(item.Wrapped)
}

// runBatch makes a call as often as one is full. What was answered before an error
// is written.
func (j Job) runBatch(ctx context.Context, call Call) (Tally, error) {
	buffer := make([]byte, maxLine)
	defer clear(buffer)
	lines := bufio.NewScanner(j.In)
	lines.Buffer(buffer, maxLine)
	var tally Tally
	var next batch
	defer func() { next.request.Wipe() }()
	flush := func() error {
		defer func() { next.request.Wipe(); next = batch{} }()
		if len(next.request.Items) == 0 {
			return nil
		}
		return j.answer(ctx, call, &next.request, &tally)
	}
	number := 1
	for ; lines.Scan(); number++ {
		item, err := j.parse(lines.Bytes())
		if err != nil {
			return tally, after(tally, fmt.Errorf("%w: line %d: %w", ErrInput, number, err))
		}
		if !next.fits(item) {
			if err := flush(); err != nil {
				item.Plaintext.Wipe()
				return tally, after(tally, err)
			}
		}
		next.add(item)
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return tally, after(tally, fmt.Errorf("%w: line %d: it has more than %d bytes", ErrInput, number, maxLine))
	case err != nil:
		return tally, after(tally, fmt.Errorf("reading line %d: %w", number, err))
	}
	return tally, after(tally, flush())
}

// after says how far a batch came.
func after(t Tally, err error) error {
	if err == nil || t.Items == 0 {
		return err
	}
	return fmt.Errorf("after %d lines that were answered: %w", t.Items, err)
}

var errLine = errors.New("it is not a JSON object with members of reference, context, plaintext (base64), wrapped and size")

// notAnItem is why a line cannot be read.
func notAnItem(text []byte) error {
	var failed result
	if json.Unmarshal(text, &failed) == nil && failed.Code != "" {
		return errors.New("it is an item that failed: leave it out")
	}
	return errLine
}

// parse reads a line. Its error repeats nothing of it.
func (j Job) parse(text []byte) (exchange.KeyItem, error) {
	var line Line
	if len(text) == 0 || text[0] != '{' || json.Unmarshal(text, &line, json.RejectUnknownMembers(true)) != nil {
		clear(line.Plaintext)
		return exchange.KeyItem{}, notAnItem(text)
	}
	item := exchange.KeyItem{
		Reference: line.Reference, Context: j.Context, Plaintext: secret.New(line.Plaintext), Wrapped: line.Wrapped,
	}
	if line.Context != nil {
		item.Context = *line.Context
	}
	if j.Operation == exchange.KeyDataKey {
		item.Size = j.Size
	}
	if line.Size != nil {
		item.Size = *line.Size
	}
	if err := item.Check(); err != nil {
		item.Plaintext.Wipe()
		return exchange.KeyItem{}, err
	}
	return item, nil
}

func (j Job) answer(ctx context.Context, call Call, r *exchange.KeyRequest, tally *Tally) error {
	answer, err := call(ctx, r)
	if err != nil {
		return err
	}
	defer answer.Wipe()
	for _, result := range answer.Results {
		if err := j.writeLine(result); err != nil {
			return err
		}
		tally.Items++
		if result.Code != "" {
			tally.Failed++
		}
	}
	return nil
}

// writeLine puts the plaintext into the line by itself: an encoder would keep a
// copy of it.
func (j Job) writeLine(r exchange.KeyResult) error {
	head, err := json.Marshal(result{r.Reference, r.Wrapped, r.Code, r.Detail})
	if err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	const before, behind = `,"plaintext":"`, "\"}\n"
	plain := r.Plaintext.Expose()
	line := make([]byte, 0, len(head)+len(before)+base64.StdEncoding.EncodedLen(len(plain))+len(behind))
	defer func() { clear(line) }()
	line = append(line, head...)
	if len(plain) == 0 {
		return write(j.Out, append(line, '\n'))
	}
	line = append(line[:len(line)-1], before...)
	line = base64.StdEncoding.AppendEncode(line, plain)
	return write(j.Out, append(line, behind...))
}
