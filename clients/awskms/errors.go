package awskms

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	smithy "github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"keywright.dev/kms/root"
)

// maxText bounds what is quoted of others' errors, in bytes.
const maxText = 400

// unnamed is what the SDK makes of an error that is not in AWS's form.
const unnamed = "UnknownError"

// secretForm is what a key or a secret access key looks like in base64 or hex.
var secretForm = regexp.MustCompile(`[A-Za-z0-9+/]{40,}=*`)

// printable makes a text from outside fit to be shown: one bounded line, without
// anything that could be a key which an answer echoes.
func printable(text string) string {
	text = secretForm.ReplaceAllString(text, "(withheld)")
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return ' '
		}
		return r
	}, text)
	if len(text) > maxText {
		text = text[:maxText] + "…"
	}
	return strings.TrimSpace(text)
}

// classify turns what the SDK returns into an error of a root's classes. It keeps
// no error of the SDK, which hold what was answered.
func classify(operation string, err error) error {
	var refusal smithy.APIError
	var untrusted *tls.CertificateVerificationError
	switch {
	case errors.As(err, &refusal):
	case errors.As(err, &untrusted):
		return fmt.Errorf("%w: %s: the certificate of the endpoint is not trusted: check the endpoint, and AWS_CA_BUNDLE: %s",
			root.ErrRefused, operation, printable(untrusted.Error()))
	default:
		// Not answered, in vain so far: the network, the context, the credentials'
		// source, an answer that is none.
		return fmt.Errorf("%w: %s: %s", root.ErrUnavailable, operation, printable(err.Error()))
	}
	advice, class := judge(refusal.ErrorCode(), refusal.ErrorMessage(), statusOf(err))
	said := printable(refusal.ErrorCode() + " " + refusal.ErrorMessage())
	return fmt.Errorf("%w: %s: %s (AWS says: %s)", class, operation, advice, said)
}

// statusOf returns the status of the answer that failed, 0 if there is none.
func statusOf(err error) int {
	var response *smithyhttp.ResponseError
	if !errors.As(err, &response) {
		return 0
	}
	return response.HTTPStatusCode()
}

// judge tells what an error of AWS means to whoever runs the service, and its class.
func judge(code, message string, status int) (advice string, class error) {
	switch code {
	case "InvalidCiphertextException":
		return "this key did not encrypt it for this context, or it was altered", root.ErrDoesNotOpen
	case "IncorrectKeyException":
		return "another key encrypted it", root.ErrDoesNotOpen
	case "AccessDeniedException", "AccessDenied":
		return "not allowed: allow it in the key policy or in the IAM policy of this service's role, with its encryption context", root.ErrRefused
	case "DisabledException":
		return "the key is disabled: run aws kms enable-key", root.ErrRefused
	case "KMSInvalidStateException":
		return stateAdvice(message), root.ErrRefused
	case "NotFoundException":
		return "this account has no such key in this region: check ARN and region; a key that was deleted does not come back", root.ErrRefused
	case "InvalidKeyUsageException":
		return "the key is not one for symmetric encryption: make one with key spec SYMMETRIC_DEFAULT", root.ErrRefused
	case "DependencyTimeoutException", "KeyUnavailableException", "KMSInternalException":
		return "KMS has a fault of its own", root.ErrUnavailable
	case "ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded", "LimitExceededException":
		return "too many calls in this account and region, or over its quota", root.ErrUnavailable
	default:
		return judgeCommon(code, status)
	}
}

// judgeCommon knows the errors that are not KMS's but those of all of AWS.
func judgeCommon(code string, status int) (advice string, class error) {
	switch code {
	case "UnrecognizedClientException", "InvalidClientTokenId", "InvalidSignatureException", "SignatureDoesNotMatch",
		"IncompleteSignatureException", "IncompleteSignature", "MissingAuthenticationTokenException", "MissingAuthenticationToken":
		return "the credentials are not accepted: check the access key of this service, and its clock", root.ErrRefused
	case "ExpiredTokenException", "ExpiredToken", "RequestExpired", "RequestTimeTooSkewed":
		return "the credentials have expired: renew them, and check the clock of this service", root.ErrRefused
	case "ServiceUnavailable", "ServiceUnavailableException", "InternalFailure", "InternalServerError", "RequestTimeout", "RequestTimeoutException":
		return "AWS has a fault of its own", root.ErrUnavailable
	}
	switch {
	case status >= http.StatusInternalServerError, status == http.StatusTooManyRequests:
		return fmt.Sprintf("answered with status %d", status), root.ErrUnavailable
	case code == unnamed:
		return fmt.Sprintf("answered with status %d: check that the endpoint is one of KMS", status), root.ErrRefused
	default:
		return fmt.Sprintf("answered with status %d", status), root.ErrRefused
	}
}

// stateAdvice tells the states apart by what KMS says of them, since it answers
// them all with one error.
func stateAdvice(message string) string {
	switch message = strings.ToLower(message); {
	case strings.Contains(message, "pending deletion"), strings.Contains(message, "pending replica deletion"):
		return "the key is pending deletion, and all that it wrapped is lost with it: " +
			"run aws kms cancel-key-deletion at once, then aws kms enable-key"
	case strings.Contains(message, "pending import"):
		return "the key's imported material is missing or has expired: import it again"
	case strings.Contains(message, "unavailable"):
		return "the key's custom key store is not connected: run aws kms connect-custom-key-store"
	default:
		return "the key is in no state to be used: aws kms describe-key shows which"
	}
}
