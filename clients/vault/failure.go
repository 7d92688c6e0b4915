package vault

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/hashicorp/vault/api"

	"keywright.dev/kms/root"
)

const (
	maxQuoted = 200 // characters of what Vault says of an error
	// longestWord is less than a token, a secret id or a key has: an error page may
	// repeat what was sent.
	longestWord = 24
)

// failure is a request that was not answered with what was asked for.
type failure struct {
	class  error
	cause  error // the context's, or nil
	text   string
	status int           // of HTTP; 0 where there was no answer, or none to our request proper
	again  bool          // the same request may succeed soon
	after  time.Duration // what Vault asks us to wait before
}

func (f *failure) Error() string { return f.class.Error() + ": " + f.text }

func (f *failure) Unwrap() []error {
	if f.cause == nil {
		return []error{f.class}
	}
	return []error{f.class, f.cause}
}

func refused(format string, args ...any) error {
	return &failure{class: root.ErrRefused, text: fmt.Sprintf(format, args...)}
}

// malformed is for an answer that Transit does not give.
func malformed(text string) error {
	return &failure{class: root.ErrRefused, text: "the answer is not one of Vault's Transit engine: " + text}
}

// failureOf tells what an error of Vault's library means.
func failureOf(ctx context.Context, resp *api.Response, err error, now time.Time) *failure {
	if answer := new(api.ResponseError); errors.As(err, &answer) {
		return answered(answer, resp, now)
	}
	f := &failure{class: root.ErrUnavailable, text: "no answer: " + printable(reason(err)), again: true}
	if ctx.Err() != nil {
		f.cause, f.again = ctx.Err(), false
	}
	if isAboutCertificates(err) {
		f.class, f.again = root.ErrRefused, false
	}
	return f
}

// reason leaves out the request that net/http names first.
func reason(err error) string {
	if request := new(url.Error); errors.As(err, &request) {
		return request.Err.Error()
	}
	return err.Error()
}

// isAboutCertificates reports whether one side does not trust the other.
func isAboutCertificates(err error) bool {
	var ours *tls.CertificateVerificationError
	var theirs tls.AlertError
	return errors.As(err, &ours) || errors.As(err, &theirs)
}

func answered(answer *api.ResponseError, resp *api.Response, now time.Time) *failure {
	f := &failure{class: classOf(answer), status: answer.StatusCode, text: said(answer)}
	switch answer.StatusCode {
	case http.StatusTooManyRequests, http.StatusPreconditionFailed, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		f.again = true
		if resp != nil {
			f.after = retryAfter(resp.Header.Get("Retry-After"), now)
		}
		if f.after > longestPause {
			f.text += fmt.Sprintf("; it asks us to wait for %s", f.after)
		}
	}
	return f
}

// classOf calls ciphertexts bad only where Transit says it of them: whatever else
// is wrong can be mended, and they open again.
func classOf(answer *api.ResponseError) error {
	text := strings.Join(answer.Errors, "\n")
	switch status := answer.StatusCode; {
	case status == http.StatusTooManyRequests, status == http.StatusPreconditionFailed, status >= http.StatusInternalServerError:
		return root.ErrUnavailable
	case status == http.StatusBadRequest && !answer.RawError &&
		(strings.Contains(text, "message authentication failed") || strings.Contains(text, "invalid ciphertext")):
		return root.ErrDoesNotOpen
	default:
		return root.ErrRefused
	}
}

// said is what an answer says. Vault's errors are JSON; the page of something in
// between is not repeated.
func said(answer *api.ResponseError) string {
	text := fmt.Sprintf("Vault answers %d %s", answer.StatusCode, http.StatusText(answer.StatusCode))
	switch {
	case answer.RawError:
		return text + ", but not in Vault's form"
	case len(answer.Errors) == 0 && answer.StatusCode == http.StatusNotFound:
		return text + ": there is no such key"
	case len(answer.Errors) == 0:
		return text
	default:
		return text + ": " + printable(strings.Join(answer.Errors, "; "))
	}
}

// printable is text from outside on one line, bounded, without long words.
func printable(text string) string {
	var words []string
	for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return r <= ' ' || !unicode.IsPrint(r) }) {
		if len(word) >= longestWord {
			word = "…"
		}
		words = append(words, word)
	}
	short := []rune(strings.Join(words, " "))
	if len(short) > maxQuoted {
		short = append(short[:maxQuoted:maxQuoted], '…')
	}
	return string(short)
}

// retryAfter reads the header of RFC 9110, section 10.2.3; 0 where it says nothing.
func retryAfter(header string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(header, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if until, err := http.ParseTime(header); err == nil {
		return max(0, until.Sub(now))
	}
	return 0
}
