package keyio_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/exchange"
	"keywright.dev/kms/keyio"
	"keywright.dev/kms/secret"
)

// calls answers each item with its own plaintext, or an error where its reference
// says so, and counts.
type calls struct{ items []int }

func (c *calls) answer(_ context.Context, r *exchange.KeyRequest) (*exchange.KeyAnswer, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	c.items = append(c.items, len(r.Items))
	var a exchange.KeyAnswer
	for _, i := range r.Items {
		result := exchange.KeyResult{Reference: i.Reference, Wrapped: "kw1." + i.Context, Plaintext: i.Plaintext.Clone()}
		if i.Reference == "bad" {
			result = exchange.KeyResult{Reference: i.Reference, Code: "ciphertext", Detail: "it does not open"}
		}
		a.Results = append(a.Results, result)
	}
	return &a, nil
}

func run(t *testing.T, j keyio.Job, in string, call keyio.Call) (string, keyio.Tally, error) {
	t.Helper()
	var out strings.Builder
	j.In, j.Out = strings.NewReader(in), &out
	tally, err := j.Run(t.Context(), call)
	return out.String(), tally, err
}

func TestOneItem(t *testing.T) {
	c := &calls{}
	out, _, err := run(t, keyio.Job{Operation: exchange.KeyWrap, Context: "ctx"}, "line\n", c.answer)
	require.NoError(t, err)
	assert.Equal(t, "kw1.ctx\n", out)

	echo := func(_ context.Context, r *exchange.KeyRequest) (*exchange.KeyAnswer, error) {
		return &exchange.KeyAnswer{Results: []exchange.KeyResult{{Plaintext: secret.Copy([]byte(r.Items[0].Wrapped)), Wrapped: "w"}}}, nil
	}
	out, _, err = run(t, keyio.Job{Operation: exchange.KeyUnwrap}, "kw1.a\r\n", echo)
	require.NoError(t, err)
	assert.Equal(t, "kw1.a", out, "nothing behind a plaintext")

	var key strings.Builder
	out, _, err = run(t, keyio.Job{Operation: exchange.KeyDataKey, Size: 32, Key: &key}, "", func(_ context.Context, r *exchange.KeyRequest) (*exchange.KeyAnswer, error) {
		assert.Equal(t, uint16(32), r.Items[0].Size)
		return &exchange.KeyAnswer{Results: []exchange.KeyResult{{Plaintext: secret.Copy([]byte("key")), Wrapped: "w"}}}, nil
	})
	require.NoError(t, err)
	assert.Equal(t, "w\n", out)
	assert.Equal(t, "key", key.String())

	refuses := func(context.Context, *exchange.KeyRequest) (*exchange.KeyAnswer, error) {
		return &exchange.KeyAnswer{Results: []exchange.KeyResult{{Code: "ciphertext", Detail: "it does not open"}}}, nil
	}
	out, _, err = run(t, keyio.Job{Operation: exchange.KeyUnwrap}, "kw1.a", refuses)
	var item *keyio.ItemError
	require.ErrorAs(t, err, &item)
	assert.Equal(t, "ciphertext: it does not open", item.Error())
	assert.Empty(t, out)
}

func TestOneItemOutOfBounds(t *testing.T) {
	for name, c := range map[string]struct {
		operation exchange.KeyOperation
		in        string
	}{
		"empty":      {exchange.KeyWrap, ""},
		"too long":   {exchange.KeyWrap, strings.Repeat("x", exchange.MaxKeyPlaintext+1)},
		"no text":    {exchange.KeyUnwrap, "\n"},
		"long text":  {exchange.KeyRewrap, strings.Repeat("x", 1<<20)},
		"empty text": {exchange.KeyRewrap, ""},
	} {
		called := &calls{}
		_, _, err := run(t, keyio.Job{Operation: c.operation}, c.in, called.answer)
		require.ErrorIs(t, err, keyio.ErrInput, name)
		assert.Empty(t, called.items)
	}
}

func TestLinesKeepTheirOrder(t *testing.T) {
	c := &calls{}
	out, tally, err := run(t, keyio.Job{Operation: exchange.KeyWrap, Context: "default", Batch: true},
		`{"reference":"b","plaintext":"b25l"}
{"reference":"bad","plaintext":"eA=="}
{"context":"own","plaintext":"dHdv"}
`, c.answer)
	require.NoError(t, err)
	assert.Equal(t, []string{
		`{"reference":"b","wrapped":"kw1.default","plaintext":"b25l"}`,
		`{"reference":"bad","code":"ciphertext","detail":"it does not open"}`,
		`{"reference":"","wrapped":"kw1.own","plaintext":"dHdv"}`,
		"",
	}, strings.Split(out, "\n"))
	assert.Equal(t, keyio.Tally{Items: 3, Failed: 1}, tally)
	assert.Equal(t, []int{3}, c.items)
}

func lines(n, size int) string {
	var text strings.Builder
	plaintext := base64.StdEncoding.EncodeToString(make([]byte, size))
	for i := range n {
		fmt.Fprintf(&text, `{"reference":"%d","plaintext":"%s"}`+"\n", i, plaintext)
	}
	return text.String()
}

// What is longer than a call takes becomes several.
func TestLongBatchesAreSplit(t *testing.T) {
	for _, c := range []struct {
		items, size int
		calls       []int
	}{
		{2500, 1, []int{1000, 1000, 500}},
		{33, exchange.MaxKeyPlaintext, []int{32, 1}},
		{0, 1, nil},
	} {
		got := &calls{}
		out, tally, err := run(t, keyio.Job{Operation: exchange.KeyWrap, Batch: true}, lines(c.items, c.size), got.answer)
		require.NoError(t, err)
		assert.Equal(t, c.calls, got.items)
		assert.Equal(t, c.items, tally.Items)
		assert.Equal(t, c.items, strings.Count(out, "\n"))
	}
	wrapped := strings.Repeat(`{"wrapped":"`+strings.Repeat("w", 20<<10)+`"}`+"\n", 100)
	got := &calls{}
	_, _, err := run(t, keyio.Job{Operation: exchange.KeyUnwrap, Batch: true}, wrapped, got.answer)
	require.NoError(t, err)
	assert.Equal(t, []int{76, 24}, got.items)
}

func TestErrorsSayHowFarItCame(t *testing.T) {
	c := &calls{}
	out, tally, err := run(t, keyio.Job{Operation: exchange.KeyWrap, Batch: true}, lines(1001, 1)+"secret\n", c.answer)
	require.ErrorIs(t, err, keyio.ErrInput)
	assert.ErrorContains(t, err, "after 1000 lines that were answered")
	assert.ErrorContains(t, err, "line 1002")
	assert.NotContains(t, err.Error(), "secret")
	assert.Equal(t, 1000, tally.Items)
	assert.Equal(t, 1000, strings.Count(out, "\n"))

	gone := errors.New("gone")
	_, _, err = run(t, keyio.Job{Operation: exchange.KeyWrap, Batch: true}, lines(2, 1), func(context.Context, *exchange.KeyRequest) (*exchange.KeyAnswer, error) {
		return nil, gone
	})
	assert.Equal(t, gone, err)
}

// What a batch wrote before it ended is good, in a file too: its wrapped forms may
// be the only ones there are.
func TestFileOfABrokenBatchStays(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	c := &calls{}
	j := keyio.Job{Operation: exchange.KeyWrap, Batch: true, In: strings.NewReader(lines(1001, 1) + "secret\n")}
	_, err := j.RunFiles(t.Context(), keyio.Files{Output: out}, c.answer)
	require.ErrorIs(t, err, keyio.ErrInput)
	written, err := os.ReadFile(out)
	require.NoError(t, err)
	assert.Equal(t, 1000, strings.Count(string(written), "\n"))

	for _, j := range []keyio.Job{
		{Operation: exchange.KeyWrap, Batch: true, In: strings.NewReader("secret\n")},
		{Operation: exchange.KeyWrap, In: strings.NewReader("")},
	} {
		out := filepath.Join(t.TempDir(), "out")
		_, err := j.RunFiles(t.Context(), keyio.Files{Output: out}, c.answer)
		require.ErrorIs(t, err, keyio.ErrInput)
		assert.NoFileExists(t, out, "nothing was answered")
	}
}

func TestLinesOutOfBoundsAreNamed(t *testing.T) {
	for text, says := range map[string]string{
		strings.Repeat("x", 100_000): "line 3: it has more than 65536 bytes",
		`{"plaintext":"` + base64.StdEncoding.EncodeToString(make([]byte, exchange.MaxKeyPlaintext+1)) + `"}`: "line 3: its plaintext has more than 16384 bytes",
	} {
		_, _, err := run(t, keyio.Job{Operation: exchange.KeyWrap, Batch: true}, lines(2, 1)+text+"\n", (&calls{}).answer)
		require.ErrorIs(t, err, keyio.ErrInput)
		assert.ErrorContains(t, err, says)
	}
}

// What one command wrote goes into the next, but for what failed.
func TestFailedItemIsNoInput(t *testing.T) {
	_, _, err := run(t, keyio.Job{Operation: exchange.KeyUnwrap, Batch: true}, `{"reference":"db","code":"ciphertext","detail":"it does not open"}`+"\n", (&calls{}).answer)
	require.ErrorIs(t, err, keyio.ErrInput)
	assert.ErrorContains(t, err, "line 1: it is an item that failed: leave it out")
}

func TestContextOutOfBoundsIsInput(t *testing.T) {
	_, _, err := run(t, keyio.Job{Operation: exchange.KeyWrap, Context: strings.Repeat("c", 256)}, "s", (&calls{}).answer)
	require.ErrorIs(t, err, keyio.ErrInput)
}

// FuzzLines holds that no line makes an item out of bounds, and that no error
// repeats a plaintext.
func FuzzLines(f *testing.F) {
	f.Add(`{"reference":"a","context":"c","plaintext":"b25l","size":32}`)
	f.Add(`{"wrapped":"kw1.default.1.AAAA"}` + "\n" + `{"wrapped":"","wrapped":""}`)
	f.Add(`{"plaintext":"b25l`)
	f.Add("\n{}")
	f.Fuzz(func(t *testing.T, text string) {
		c := &calls{}
		_, tally, err := run(t, keyio.Job{Operation: exchange.KeyUnwrap, Batch: true}, text, c.answer)
		if err == nil {
			total := 0
			for _, n := range c.items {
				total += n
			}
			assert.Equal(t, total, tally.Items)
		}
	})
}
