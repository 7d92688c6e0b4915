//go:build integration

package cli

import (
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// nobody is another user.
const nobody = 65534

// TestSocketOfAnotherUser leaves a socket in the current folder alone where
// somebody else listens. It has to run as root.
func TestSocketOfAnotherUser(t *testing.T) {
	require.Zero(t, os.Geteuid(), "this test listens as another user: run it as root")
	t.Chdir(t.TempDir())
	require.NoError(t, os.Mkdir("keywright-data", 0o700))
	p := &Program{Env: func(string) string { return "" }}
	listener, err := net.Listen("unix", socketHere)
	require.NoError(t, err)
	at, err := p.socket(t.Context())
	require.NoError(t, err)
	assert.Equal(t, socketHere, at.path)
	require.NoError(t, listener.Close())

	require.NoError(t, os.Chown("keywright-data", nobody, nobody))
	for _, dir := range []string{".", ".."} {
		require.NoError(t, os.Chmod(dir, 0o755))
	}
	listenAs(t, nobody)
	_, err = p.socket(t.Context())
	require.ErrorContains(t, err, "is another user's")
	assert.Equal(t, ExitRefused, exitCode(err))
	_, err = at.dial(t.Context())
	require.ErrorContains(t, err, "is another user's", "not even if it came there later")
	p.address = socketHere
	_, err = p.socket(t.Context())
	require.NoError(t, err, "it was named")
}

// listenAs changes the effective user of one thread while it listens.
func listenAs(t *testing.T, uid uintptr) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const same = ^uintptr(0)
	_, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, same, uid, same)
	require.Zero(t, errno)
	listener, err := net.Listen("unix", socketHere)
	_, _, errno = syscall.RawSyscall(syscall.SYS_SETRESUID, same, 0, same)
	require.Zero(t, errno)
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
}
