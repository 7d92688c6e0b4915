//go:build integration

package server_test

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/cmd/keywright/config"
	"keywright.dev/kms/api"
)

// nobody is a user that neither runs the service nor is root.
const nobody = 65534

// TestAttack05AnotherUserOnTheSocket connects as another user to a socket whose
// mode somebody has opened up. It has to run as root.
func TestAttack05AnotherUserOnTheSocket(t *testing.T) {
	require.Zero(t, os.Geteuid(), "this test changes its user: run it as root")
	folder := t.TempDir()
	for _, dir := range []string{folder, filepath.Dir(folder)} {
		require.NoError(t, os.Chmod(dir, 0o755))
	}
	socket := filepath.Join(folder, "s")
	r := newRig(t, func(c *config.Config) { c.Server.OperatorSocket = socket })
	as := func(uid uint32) (string, error) {
		command := exec.Command("curl", "--silent", "--unix-socket", socket, "--write-out", "%{http_code}", "--output", "/dev/null", "http://x"+api.PathMachines)
		command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := command.Output()
		return string(out), err
	}
	_, err := as(nobody)
	require.Error(t, err, "the socket's mode keeps others out")

	require.NoError(t, os.Chmod(socket, 0o666))
	status, err := as(nobody)
	require.NoError(t, err)
	assert.Equal(t, "403", status)
	status, err = as(0)
	require.NoError(t, err)
	assert.Equal(t, "200", status)

	response, body := r.send("operator", http.MethodGet, api.PathAudit, "")
	require.Equal(t, http.StatusOK, response.StatusCode)
	assert.Contains(t, body, `"actor":"operator/uid/65534","action":"operator.connect","outcome":"refused"`)
}
