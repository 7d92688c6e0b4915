package server

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"time"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
)

// Meaning is what a code says, to whoever gets it.
type Meaning struct {
	Code   api.Code
	Status int // of the HTTP answer
	// Text is one sentence: what was wrong and what to do.
	Text string
}

// Meanings is the one table from codes to answers.
func Meanings() []Meaning {
	return []Meaning{
		{api.CodeMalformed, http.StatusBadRequest, "The request is not of the form that this route takes; see the API reference."},
		{api.CodeTooLarge, http.StatusRequestEntityTooLarge, "The request is larger than this route takes."},
		{api.CodeNotFound, http.StatusNotFound, "There is no such thing here."},
		{api.CodeMethod, http.StatusMethodNotAllowed, "This path takes another method."},
		{api.CodeMediaType, http.StatusUnsupportedMediaType, "The body must be application/json in UTF-8 without a content encoding."},
		{api.CodeRate, http.StatusTooManyRequests, "Too many requests; come again after the time in Retry-After."},
		{api.CodeBusy, http.StatusServiceUnavailable, "The service works at its limit; come again after the time in Retry-After."},
		{api.CodeTimeout, http.StatusRequestTimeout, "The request took too long to arrive."},
		{api.CodeHandedOut, http.StatusConflict, "The secrets of this order were given to the running system as often as they may be; the machine's next boot goes on with it."},
		{api.CodeChallenge, http.StatusForbidden, "The challenge has expired, was used, or is not of this service; ask for a new one."},
		{api.CodeQuote, http.StatusForbidden, "The TPM's quote does not verify for this machine and statement."},
		{api.CodeMeasurement, http.StatusForbidden, "What booted is not approved; an operator runs keywright explain on this machine."},
		{api.CodePlatform, http.StatusForbidden, "The platform of this machine changed; an operator runs keywright explain on it."},
		{api.CodeEventLog, http.StatusForbidden, "The event log does not match the quote, or does not say what booted."},
		{api.CodeMachine, http.StatusForbidden, "The machine is not enrolled here; run keywright-unlock enroll on it."},
		{api.CodePending, http.StatusForbidden, "The machine waits for approval; an operator runs keywright machine approve."},
		{api.CodeRevoked, http.StatusForbidden, "The machine is revoked; an operator may lift that with keywright machine readmit."},
		{api.CodeCounters, http.StatusForbidden, "The TPM's counters went back: a copied vTPM? Give a clone a new vTPM and enroll it; for a machine that was restored, an operator runs keywright machine readmit."},
		{api.CodeReleased, http.StatusForbidden, "This boot had its keys already; reset the machine to ask again."},
		{api.CodeVolume, http.StatusForbidden, "A volume is not the one that was enrolled."},
		{api.CodePolicy, http.StatusForbidden, "No policy permits it."},
		{api.CodeEnrolled, http.StatusConflict, "The TPM is enrolled already: a copied vTPM? Give a clone a new vTPM; for the machine itself, an operator runs keywright machine readmit --re-enroll."},
		{api.CodeCredential, http.StatusForbidden, "The TPM did not prove that it holds both keys."},
		{api.CodeKeys, http.StatusForbidden, "The TPM's keys are not of a known template, or nothing vouches for them."},
		{api.CodeServiceKey, http.StatusForbidden, "The machine pins another service key than this service has."},
		{api.CodeUnreleased, http.StatusForbidden, "The running system did not get its keys from this service in this boot, or PCR 15 was extended since."},
		{api.CodeKeyring, http.StatusForbidden, "There is no such keyring for this, or not that version of it."},
		{api.CodeCiphertext, http.StatusForbidden, "The wrapped form does not open: it is another machine's or keyring's, of another context or purpose, or was altered."},
		{api.CodeOrder, http.StatusConflict, "No rekey of the volume is ordered that this machine could go on with now: there is none, it is for a boot alone, or the report is about another version or step."},
		{api.CodeRestored, http.StatusForbidden, "A disk of the machine is from before a rekey: an operator has to announce the restore first."},
		{api.CodeConflict, http.StatusConflict, "It exists already, or changed meanwhile."},
		{api.CodeState, http.StatusConflict, "What is there does not allow it."},
		{api.CodeFile, http.StatusConflict, "The file cannot be written where the service runs."},
		{api.CodeInUse, http.StatusConflict, "Something still depends on it; keywright keyring census names what."},
		{api.CodeForbidden, http.StatusForbidden, "You may not do this; the attempt was recorded."},
		{api.CodeUnavailable, http.StatusServiceUnavailable, "The service cannot answer now; come again after the time in Retry-After."},
		{api.CodeRoots, http.StatusServiceUnavailable, "No root of trust opens the keys that are needed; the service's log says which, and what each root answered."},
		{api.CodeInternal, http.StatusInternalServerError, "The service failed; its log says why, under the id of this request."},
	}
}

func meaningOf(code api.Code) Meaning {
	for _, m := range Meanings() {
		if m.Code == code {
			return m
		}
	}
	return meaningOf(api.CodeInternal)
}

// failure is an answer that is not a success.
type failure struct {
	status int
	body   api.Error
	// cause is for the log; nil where the answer says it all.
	cause error
}

// Error returns the answer's own text.
func (f *failure) Error() string { return f.body.Error() }

// GetStatus makes it an error of the operators' router.
func (f *failure) GetStatus() int { return f.status }

// GetHeaders likewise.
func (f *failure) GetHeaders() http.Header {
	header := http.Header{}
	if f.body.RetryAfter > 0 {
		header.Set("Retry-After", fmt.Sprint(f.body.RetryAfter))
	}
	return header
}

func fail(code api.Code) *failure {
	m := meaningOf(code)
	return &failure{status: m.Status, body: api.Error{Code: m.Code, Number: m.Code.Number(), Message: m.Text}}
}

// failAfter is an answer that names the time to come again.
func failAfter(code api.Code, after time.Duration) *failure {
	f := fail(code)
	f.body.RetryAfter = int(math.Ceil(max(after, time.Second).Seconds()))
	return f
}

// failWith puts text in the place of the table's. It must not repeat a value
// of the request.
func failWith(code api.Code, text string) *failure {
	f := fail(code)
	f.body.Message = text
	return f
}

// failureOf turns any error into an answer.
func failureOf(err error) *failure {
	var (
		known   *failure
		refusal *kms.Refusal
		usage   *kms.UsageError
		state   *kms.StateError
		missing *kms.NotFoundError
		inUse   *kms.InUseError
		wraps   *kms.WrapError
	)
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &refusal):
		return refused(refusal)
	case errors.As(err, &usage):
		return failWith(api.CodeMalformed, usage.Text)
	case errors.As(err, &state):
		return failWith(api.CodeState, state.Text)
	case errors.As(err, &inUse):
		return failWith(api.CodeInUse, inUse.Error())
	case errors.As(err, &missing):
		return failWith(api.CodeNotFound, fmt.Sprintf("There is no such %s.", missing.Kind))
	case errors.Is(err, kms.ErrNotFound):
		return fail(api.CodeNotFound)
	case errors.Is(err, kms.ErrExists):
		return fail(api.CodeConflict)
	case errors.As(err, &wraps):
		return unwrapped(wraps, err)
	case errors.Is(err, kms.ErrRoots), errors.Is(err, kms.ErrRootsRefuse):
		f := failAfter(api.CodeRoots, retryUnavailable)
		f.cause = err
		return f
	case errors.Is(err, kms.ErrUnavailable), errors.Is(err, kms.ErrRetired), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		f := failAfter(api.CodeUnavailable, retryUnavailable)
		f.cause = err
		return f
	default:
		f := fail(api.CodeInternal)
		f.cause = err
		return f
	}
}

// unwrapped is of a new keyring version that a root did not wrap.
func unwrapped(w *kms.WrapError, cause error) *failure {
	f := fail(api.CodeInternal)
	if errors.Is(w, kms.ErrUnavailable) {
		f = failAfter(api.CodeRoots, retryUnavailable)
	}
	f.body.Message = w.Root + " did not wrap the new key, and a new keyring version needs every root in server.roots: " +
		"nothing was changed. The service's log says what it answered."
	f.cause = cause
	return f
}

// refused tells the caller the reason and nothing else; what differed stands in
// the audit log.
func refused(r *kms.Refusal) *failure {
	f := fail(api.Code(r.Reason))
	if r.Reason == kms.ReasonRate {
		f = failAfter(api.CodeRate, retryBusy)
	}
	f.cause = r
	return f
}
