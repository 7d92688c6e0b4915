package main

import (
	"bytes"
	"encoding/hex"
	"io"
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
	"golang.org/x/sys/unix"

	"keywright.dev/kms/api"
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
	command := serverCommand(t, env...)
	s := launch(t, command)
	s.stop = sync.OnceFunc(func() {
		assert.NoError(t, command.Process.Signal(syscall.SIGTERM))
		assert.NoError(t, command.Wait())
	})
	t.Cleanup(s.stop)
	return s
}

// serverCommand is a service in a folder that is removed with the test.
func serverCommand(t *testing.T, env ...string) *exec.Cmd {
	t.Helper()
	command := exec.Command("keywright", "server", "--dev")
	command.Env = append(append(os.Environ(), "TMPDIR="+t.TempDir()), env...)
	return command
}

// launch starts a service and waits until it is ready.
func launch(t *testing.T, command *exec.Cmd) *child {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	command.Stdout = out
	require.NoError(t, command.Start())
	var said map[string]string
	require.Eventually(t, func() bool {
		text, _ := os.ReadFile(out.Name())
		said = announcement(string(text))
		return isReady(said["metrics"])
	}, 10*time.Second, 10*time.Millisecond)
	pin, err := hex.DecodeString(strings.TrimPrefix(said["service key"], "sha256:"))
	require.NoError(t, err)
	url := said["guests connect to"]
	return &child{pid: command.Process.Pid, address: strings.TrimPrefix(url, "https://"), url: url, socket: said["operators use"], pin: [32]byte(pin)}
}

// TestServiceEndsWhenItsStoreFails lets the kernel refuse every write to a file,
// as a disk that dies does: what the store holds is unknown then, until it is
// opened anew.
func TestServiceEndsWhenItsStoreFails(t *testing.T) {
	command := serverCommand(t)
	var log bytes.Buffer
	command.Stderr = &log
	s := launch(t, command)
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	t.Cleanup(func() { _ = command.Process.Kill() }) // it ended, unless the test failed

	require.NoError(t, unix.Prlimit(s.pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 1, Max: unix.RLIM_INFINITY}, nil))
	operator := api.NewOperatorClient(s.socket)
	defer operator.Close()
	require.Error(t, operator.ExportAudit(t.Context(), io.Discard), "it is recorded first")
	select {
	case err := <-ended:
		var failed *exec.ExitError
		require.ErrorAs(t, err, &failed)
		assert.Equal(t, 1, failed.ExitCode())
		assert.Contains(t, log.String(), "the store takes no changes since writing to disk failed")
	case <-time.After(10 * time.Second):
		t.Fatal("the service goes on")
	}
}
