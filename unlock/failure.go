package unlock

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/unlock/luks"
)

// The codes of failures in the guest itself, which no service sends. Their
// numbers, 14xx, stand between those of package api.
const (
	// CodeGuest: what none of the following says, such as a configuration that
	// cannot be read.
	CodeGuest api.Code = "guest"
	// CodeTPM: the TPM does not do what it is asked.
	CodeTPM api.Code = "tpm"
	// CodeDevice: a volume's device is missing, or its header is refused.
	CodeDevice api.Code = "device"
	// CodeNotEnrolled: no volume has a token of ours.
	CodeNotEnrolled api.Code = "not_enrolled"
	// CodeSpent: PCR 15 is not zero, so that this boot cannot ask any more.
	CodeSpent api.Code = "spent"
	// CodeUntrusted: an answer is not the pinned service's, or not to this
	// statement.
	CodeUntrusted api.Code = "untrusted_answer"
	// CodeOpen: the released secrets do not open the volumes.
	CodeOpen api.Code = "open"
	// CodeRoot: the root device is not a mapping of this boot.
	CodeRoot api.Code = "root"
)

// number returns the number of a code of the service or of the guest.
func number(code api.Code) int {
	switch code {
	case CodeGuest:
		return 1400
	case CodeTPM:
		return 1401
	case CodeDevice:
		return 1402
	case CodeNotEnrolled:
		return 1403
	case CodeSpent:
		return 1404
	case CodeUntrusted:
		return 1405
	case CodeOpen:
		return 1406
	case CodeRoot:
		return 1407
	default:
		return code.Number()
	}
}

// Failure is why a boot, a hand-over or an enrolment did not come to its end.
type Failure struct {
	Code api.Code
	// Number is Code's in the form that consoles show as KW-1203.
	Number int
	// Server is the host that answered, or those that did not; empty where none
	// was asked.
	Server string
	// Refused tells that the service understood and answered no.
	Refused bool
	// RetryAfter is how long the service asked to wait.
	RetryAfter time.Duration

	err error
}

// Error says what failed and why.
func (f *Failure) Error() string {
	return fmt.Sprintf("KW-%04d %s", f.Number, f.text())
}

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.err }

// text is one line.
func (f *Failure) text() string {
	detail := strings.Join(strings.Fields(f.err.Error()), " ")
	var said *api.Error
	switch {
	case errors.As(f.err, &said):
		return fmt.Sprintf("%s, said by %s: %s", f.Code, f.Server, said.Message)
	case f.Server != "":
		return fmt.Sprintf("%s, asking %s: %s", f.Code, f.Server, detail)
	default:
		return fmt.Sprintf("%s: %s", f.Code, detail)
	}
}

// Line returns what consoles show: one line of printable characters, with the
// code, the server, the short machine id and when the next try is; no next try
// where next is negative.
func (f *Failure) Line(machine string, next time.Duration) string {
	who := ""
	if machine != "" {
		who = fmt.Sprintf(" (machine %s)", exchange.ShortID(machine))
	}
	then := ""
	if next >= 0 {
		then = fmt.Sprintf("; next try %d s", int(next.Round(time.Second)/time.Second))
	}
	detail := strings.Join(strings.Fields(f.err.Error()), " ")
	var line string
	switch {
	case f.Refused:
		line = fmt.Sprintf("keywright KW-%04d refused by %s%s: %s%s", f.Number, f.Server, who, f.Code, hint(f.Code))
	case f.Server != "":
		line = fmt.Sprintf("keywright KW-%04d %s at %s%s: %s", f.Number, f.Code, f.Server, who, detail)
	default:
		line = fmt.Sprintf("keywright KW-%04d %s%s: %s", f.Number, f.Code, who, detail)
	}
	line = printable(line)
	return line[:min(len(line), maxLine-len(then))] + then
}

// hint says what to do about a refusal that no later try changes by itself.
func hint(code api.Code) string {
	if code == api.CodeCounters {
		return ": a copied vTPM? Give a clone a new one; if this machine was restored, an operator runs keywright machine readmit"
	}
	return ""
}

// Line returns what consoles show of an error that no try follows.
func Line(err error) string { return asFailure(err).Line("", -1) }

const maxLine = 300

func printable(line string) string {
	line = strings.Map(printableRune, line)
	return line[:min(len(line), maxLine)]
}

func printableRune(r rune) rune {
	if r < ' ' || r > '~' {
		return '?'
	}
	return r
}

// asFailure returns the failure in err, or makes one of it.
func asFailure(err error) *Failure {
	var failure *Failure
	if !errors.As(err, &failure) {
		failure = fail(CodeGuest, err)
	}
	return failure
}

func fail(code api.Code, err error) *Failure {
	return &Failure{Code: code, Number: number(code), err: err}
}

// TPMFailure makes a failure of a TPM that cannot be used, or is not this machine's.
func TPMFailure(err error) error { return fail(CodeTPM, err) }

// answered makes a failure of what a server said, or of its silence.
func answered(server string, err error) *Failure {
	var said *api.Error
	if !errors.As(err, &said) {
		return &Failure{Code: api.CodeUnavailable, Number: api.CodeUnavailable.Number(), Server: server, err: err}
	}
	return &Failure{
		Code: said.Code, Number: said.Number, Server: server, err: said,
		Refused:    !busy(said.Number),
		RetryAfter: time.Duration(said.RetryAfter) * time.Second,
	}
}

// busy tells whether the number is of a limit or of the service's own trouble:
// the next try may do better without a change.
func busy(number int) bool { return number/100 == 11 || number/100 == 15 }

// Exit codes of the program.
const (
	ExitDone        = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitRefused     = 3 // by the service, or a header that is not opened
	ExitUnknown     = 4 // whether the next boot gets its keys
	ExitInPart      = 4 // some items of a batch
	ExitUnavailable = 5 // no service answers
)

// ExitCode returns the exit code that an error of this package ends with.
func ExitCode(err error) int {
	var failure *Failure
	var header *luks.Refusal
	switch {
	case err == nil:
		return ExitDone
	case errors.As(err, &header):
		return ExitRefused
	case !errors.As(err, &failure):
		return ExitFailed
	case failure.Refused:
		return ExitRefused
	case busy(failure.Number):
		return ExitUnavailable
	default:
		return ExitFailed
	}
}
