package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func askpass(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "askpass")
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755))
	return path
}

func TestAskpassIsGivenTheQuestion(t *testing.T) {
	said := filepath.Join(t.TempDir(), "said")
	got, err := askWith(askpass(t, `printf %s "$1" >`+said+`; printf 'sesame'`))(t.Context(), "Please unlock disk root: ")
	require.NoError(t, err)
	assert.Equal(t, "sesame", string(got.Expose()))
	question, err := os.ReadFile(said)
	require.NoError(t, err)
	assert.Equal(t, "Please unlock disk root: ", string(question))
}

func TestAskpassThatFailsIsAnError(t *testing.T) {
	_, err := askWith(askpass(t, "echo half; exit 3"))(t.Context(), "?")
	require.ErrorContains(t, err, "exit status 3")
	assert.NotContains(t, err.Error(), "half")
	_, err = askWith(askpass(t, "exit 0"))(t.Context(), "?")
	require.ErrorContains(t, err, "empty")
	_, err = askWith("/nonexistent")(t.Context(), "?")
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestAskpassEndsWhenTheQuestionIsTakenAway(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	fifo := filepath.Join(t.TempDir(), "never")
	program := askpass(t, "trap 'exit 143' TERM; mkfifo "+fifo+"; read -r line <"+fifo)
	done := make(chan error, 1)
	go func() {
		_, err := askWith(program)(ctx, "?")
		done <- err
	}()
	require.Eventually(t, func() bool { _, err := os.Stat(fifo); return err == nil }, time.Minute, time.Millisecond)
	cancel()
	require.Error(t, <-done)
}
