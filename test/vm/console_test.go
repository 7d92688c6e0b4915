package vm

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func expecting(markers ...string) finder {
	return func(text string) (string, int) { return findLine(text, markers) }
}

func TestConsoleGivesWholeLines(t *testing.T) {
	c := newConsole("guest", time.Minute)
	go func() {
		for _, part := range []string{"boot", "ing\r\n\x1b[1;33mroot is ", "mounted\x1b[0m\r\nre", "ady\r\n"} {
			fmt.Fprint(c, part)
		}
	}()
	line, err := c.await(t.Context(), "root", expecting("refused", "root is"))
	require.NoError(t, err)
	assert.Equal(t, "root is mounted", line)
	line, err = c.await(t.Context(), "ready", expecting("ready"))
	require.NoError(t, err)
	assert.Equal(t, "ready", line)
	assert.Equal(t, "booting\nroot is mounted\nready\n", c.log())
}

func TestConsoleMatchesOnce(t *testing.T) {
	c := newConsole("guest", time.Minute)
	fmt.Fprint(c, "try 1\ntry 2\n")
	for _, want := range []string{"try 1", "try 2"} {
		line, err := c.await(t.Context(), "a try", expecting("try"))
		require.NoError(t, err)
		assert.Equal(t, want, line)
	}
	c.end()
	_, err := c.await(t.Context(), "a try", expecting("try"))
	assert.ErrorIs(t, err, ErrEnded)
}

func TestConsoleFindsPromptInUnfinishedLine(t *testing.T) {
	c := newConsole("guest", time.Minute)
	fmt.Fprint(c, "noise\nPassphrase: ")
	match, err := c.await(t.Context(), "a prompt", func(text string) (string, int) {
		return findPrompt(text, "Passphrase:")
	})
	require.NoError(t, err)
	assert.Equal(t, "Passphrase:", match)
}

func TestConsoleErrorsShowTheEnd(t *testing.T) {
	c := newConsole("web-17", time.Minute)
	for i := range 50 {
		fmt.Fprintf(c, "line %d\n", i)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := c.await(ctx, `"unlocked"`, expecting("unlocked"))
	require.ErrorIs(t, err, context.Canceled)
	assert.ErrorContains(t, err, `awaiting "unlocked" on the console of web-17`)
	assert.ErrorContains(t, err, "line 20\n")
	assert.ErrorContains(t, err, "line 49")
	assert.NotContains(t, err.Error(), "line 19\n")
}

func TestConsoleSilence(t *testing.T) {
	c := newConsole("guest", 20*time.Millisecond)
	_, err := c.await(t.Context(), "anything", expecting("x"))
	assert.ErrorIs(t, err, ErrSilent)
}

func TestConsoleKeepsTheNewest(t *testing.T) {
	c := newConsole("guest", time.Minute)
	fmt.Fprint(c, "oldest\n", strings.Repeat("x", consoleLimit-7), "newest\n")
	assert.Len(t, c.log(), consoleLimit)
	assert.NotContains(t, c.log(), "oldest")
	_, err := c.await(t.Context(), "newest", expecting("newest"))
	assert.NoError(t, err)
}

func TestDecodeGiven(t *testing.T) {
	const digest = "98ea6e4f216f2fb4b69fff9b3a44842c38686ca685f3f55dc48c5d3fb1107be4" // of "hi\n"
	content, err := decodeGiven("note", "aGkK", digest)
	require.NoError(t, err)
	assert.Equal(t, "hi\n", string(content))
	_, err = decodeGiven("note", "aGkh", digest)
	assert.ErrorContains(t, err, "garbled")
	_, err = decodeGiven("note", "a", digest)
	assert.ErrorContains(t, err, "illegal base64")
}
