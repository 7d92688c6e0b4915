package cli

import (
	"io/fs"
	"net"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"

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
