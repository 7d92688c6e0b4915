package main

import (
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// child is a service in a process of its own.
type child struct {
	pid          int
	address, url string
	socket       string
	pin          [32]byte
	// stop ends it in order, once.
	stop func()
}

func startServer(t *testing.T, env ...string) *child {
	t.Helper()
	dir := t.TempDir()
	out, err := os.Create(filepath.Join(dir, "out"))
	require.NoError(t, err)
	command := exec.Command("keywright", "server", "--dev")
	command.Env = append(append(os.Environ(), "TMPDIR="+dir), env...)
	command.Stdout = out
	require.NoError(t, command.Start())
	stop := sync.OnceFunc(func() {
		assert.NoError(t, command.Process.Signal(syscall.SIGTERM))
		assert.NoError(t, command.Wait())
	})
	t.Cleanup(stop)
	var said map[string]string
	require.Eventually(t, func() bool {
		text, _ := os.ReadFile(out.Name())
		said = announcement(string(text))
		return isReady(said["metrics"])
	}, 10*time.Second, 10*time.Millisecond)
	pin, err := hex.DecodeString(strings.TrimPrefix(said["service key"], "sha256:"))
	require.NoError(t, err)
	url := said["guests connect to"]
	return &child{command.Process.Pid, strings.TrimPrefix(url, "https://"), url, said["operators use"], [32]byte(pin), stop}
}
