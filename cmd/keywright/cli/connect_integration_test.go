//go:build integration

package cli

import (
	"net"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// nobody is another user.
const nobody = 65534

// TestSocketOfAnotherUser leaves a socket in the current folder alone that
// somebody else made there. It has to run as root.
func TestSocketOfAnotherUser(t *testing.T) {
	require.Zero(t, os.Geteuid(), "this test gives a socket away: run it as root")
	t.Chdir(t.TempDir())
	require.NoError(t, os.Mkdir("keywright-data", 0o700))
	listener, err := net.Listen("unix", socketHere)
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	p := &Program{Env: func(string) string { return "" }}
	path, err := p.socket(t.Context())
	require.NoError(t, err)
	assert.Equal(t, socketHere, path)

	require.NoError(t, os.Lchown(socketHere, nobody, nobody))
	_, err = p.socket(t.Context())
	require.ErrorContains(t, err, "belongs to another user")
	assert.Equal(t, ExitRefused, exitCode(err))
	p.address = socketHere
	_, err = p.socket(t.Context())
	require.NoError(t, err, "it was named")
}
