package cli

import (
	"io"
	"io/fs"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/api"
)

func TestExitCodes(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "unix", Err: syscall.EACCES}
	for code, errs := range map[int][]error{
		ExitUsage:       {usagef("no"), &api.Error{Code: api.CodeMalformed}},
		ExitRefused:     {&api.Error{Code: api.CodeForbidden}, &api.Error{Code: api.CodeState}, reached("/run/x.sock", refused)},
		ExitUnavailable: {&api.Error{Code: api.CodeUnavailable}, &api.Error{Code: api.CodeBusy}, &errUnreachable{"/run/x.sock", fs.ErrNotExist}},
		ExitFailed:      {&api.Error{Code: api.CodeFile}, &api.Error{Code: api.CodeConflict}, &api.Error{Code: api.CodeNotFound}, fs.ErrExist},
	} {
		for _, err := range errs {
			assert.Equal(t, code, exitCode(err), err)
		}
	}
}

// TestServiceGoesAway takes a request and ends the connection, at once or within
// the answer.
func TestServiceGoesAway(t *testing.T) {
	for _, said := range []string{"", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"} {
		path := filepath.Join(t.TempDir(), "x.sock")
		listener, err := net.Listen("unix", path)
		require.NoError(t, err)
		go func() {
			conn, err := listener.Accept()
			if err == nil {
				_, _ = conn.Read(make([]byte, 4096))
				_, _ = conn.Write([]byte(said))
				conn.Close()
			}
		}()
		var stderr strings.Builder
		p := &Program{Out: io.Discard, Err: &stderr, Env: func(string) string { return "" }, Clock: time.Now}
		assert.Equal(t, ExitUnavailable, p.Run(t.Context(), []string{"status", "--addr", path}))
		assert.Contains(t, stderr.String(), "went away before its answer was complete")
		require.NoError(t, listener.Close())
	}
}
