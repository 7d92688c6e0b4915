package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"syscall"

	"keywright.dev/kms/api"
	"keywright.dev/kms/audit"
)

// errUnreachable means that no service answers at the socket.
type errUnreachable struct {
	address string
	cause   error
}

func (e *errUnreachable) Error() string {
	switch {
	case errors.Is(e.cause, fs.ErrNotExist):
		return fmt.Sprintf("no service at %s: start one with keywright server, or name its socket in KEYWRIGHT_ADDR", e.address)
	case errors.Is(e.cause, fs.ErrPermission):
		return fmt.Sprintf("%s: permission denied: run this as the service's user or as root", e.address)
	case errors.Is(e.cause, syscall.ECONNREFUSED):
		return fmt.Sprintf("no service at %s: the one that made this socket is gone; start it again", e.address)
	default:
		return fmt.Sprintf("the service at %s does not answer: %v", e.address, e.cause)
	}
}

// code is that of a refusal where there is a service that lets others in.
func (e *errUnreachable) code() int {
	if errors.Is(e.cause, fs.ErrPermission) {
		return ExitRefused
	}
	return ExitUnavailable
}

func (e *errUnreachable) Unwrap() error { return e.cause }

// refusal is what the state of things does not allow, as the service would say.
type refusal struct{ error }

func refusedf(format string, args ...any) error {
	return &refusal{fmt.Errorf(format, args...)}
}

// waiting is what was entered and has no effect until somebody approves it.
type waiting struct{ id, group string }

func (w *waiting) Error() string {
	return fmt.Sprintf("measurement/%s waits for approval: run keywright measurement approve %s --group %s", w.id, w.id, w.group)
}

// partly is what was done but for what it names.
type partly struct{ error }

// about says which reference an error is about.
type about struct {
	ref string
	error
}

func (a *about) Unwrap() error { return a.error }

// explain puts an error into one line for people.
func explain(err error) string {
	var (
		known *api.Error
		on    *about
	)
	text := err.Error()
	if errors.As(err, &known) {
		text = strings.TrimSuffix(known.Message, ".")
		switch known.Code {
		case api.CodeNotFound:
			text = strings.ToLower(text) + hint(known)
		case api.CodeUnavailable:
			text = fmt.Sprintf("the service cannot do this now; its log says why, under request %s", known.Request)
		case api.CodeInternal:
			text += fmt.Sprintf(" (request %s)", known.Request)
		}
	}
	if errors.As(err, &on) {
		text = on.ref + ": " + text
	}
	if isUsage(err) {
		text += "; see keywright --help"
	}
	return text
}

// hint says where to look for what was not found.
func hint(e *api.Error) string {
	for _, kind := range []string{"machine", "measurement", "volume", "keyring"} {
		if e.Message == fmt.Sprintf("There is no such %s.", kind) {
			return fmt.Sprintf("; keywright %s list shows what there is", kind)
		}
	}
	switch e.Message {
	case "There is no such keyring version.":
		return "; keywright keyring show shows what there is"
	case "There is no such root.":
		return "; keywright root list shows what there is"
	}
	return ""
}

// errPartly means that something was not done, or is not as it should be, and was
// named before.
var errPartly = errors.New("not everything is done: what is not is named above")

// exitCode is the code that an error ends with.
func exitCode(err error) int {
	var (
		known *api.Error
		gone  *errUnreachable
		no    *refusal
		wait  *waiting
		broke *errBrokenOff
		part  *partly
	)
	switch {
	case isUsage(err):
		return ExitUsage
	case errors.As(err, &known):
		return exitOf(known.Code)
	case errors.As(err, &part):
		return ExitPartly
	case errors.As(err, &gone):
		return gone.code()
	case errors.As(err, &broke):
		return ExitUnavailable
	case errors.Is(err, errPartly):
		return ExitPartly
	case errors.As(err, &wait):
		return ExitWaiting
	case errors.As(err, &no), errors.Is(err, audit.ErrTampered):
		return ExitRefused
	default:
		return ExitFailed
	}
}

func exitOf(code api.Code) int {
	number := code.Number()
	switch {
	case code == api.CodeMalformed:
		return ExitUsage
	case code.Unavailable(), number/100 == 11:
		return ExitUnavailable
	case code == api.CodeForbidden, code == api.CodeState, code == api.CodeInUse, number/100 == 12:
		return ExitRefused
	default:
		return ExitFailed
	}
}

// reached turns a failure to connect, or of the connection, into one that says
// what to do.
func reached(address string, err error) error {
	var op *net.OpError
	isOp := errors.As(err, &op)
	switch {
	case isOp && op.Op == "dial":
		return &errUnreachable{address, op.Err}
	case isOp, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &errBrokenOff{address}
	default:
		return err
	}
}

// errBrokenOff means that a service was there and did not answer to the end.
type errBrokenOff struct{ address string }

func (e *errBrokenOff) Error() string {
	return fmt.Sprintf("the service at %s went away before its answer was complete: "+
		"if you asked for a change, look whether it was made", e.address)
}
