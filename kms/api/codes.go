package api

import "fmt"

// Code is the machine-readable reason of an error.
type Code string

// Error is the body of every answer that is not a success. No part of it
// repeats a value of the request.
type Error struct {
	Code Code `json:"code"`
	// Number is the code in the form that consoles show as KW-1203.
	Number int `json:"number"`
	// Message is one sentence for people: what was wrong and what to do.
	Message string `json:"message"`
	// Request names the request in the service's log and audit log.
	Request string `json:"request,omitempty"`
	// RetryAfter is in seconds; 0 where a retry without a change is in vain.
	RetryAfter int `json:"retry_after,omitzero"`
}

// Error returns "KW-1203 measurement: message".
func (e *Error) Error() string {
	return fmt.Sprintf("KW-%04d %s: %s", e.Number, e.Code, e.Message)
}

// The codes. 10xx: the request; 11xx: limits; 12xx: a refusal; 13xx: an
// operator's request; 15xx: the service.
const (
	CodeMalformed   Code = "malformed"
	CodeTooLarge    Code = "too_large"
	CodeNotFound    Code = "not_found"
	CodeMethod      Code = "method_not_allowed"
	CodeMediaType   Code = "media_type"
	CodeRate        Code = "rate_limited"
	CodeBusy        Code = "busy"
	CodeTimeout     Code = "timeout"
	CodeChallenge   Code = "challenge"
	CodeQuote       Code = "quote"
	CodeMeasurement Code = "measurement"
	CodePlatform    Code = "platform"
	CodeEventLog    Code = "event_log"
	CodeMachine     Code = "machine_unknown"
	CodePending     Code = "machine_pending"
	CodeRevoked     Code = "machine_revoked"
	CodeCounters    Code = "counters"
	CodeReleased    Code = "already_released"
	CodeVolume      Code = "volume"
	CodePolicy      Code = "policy"
	CodeEnrolled    Code = "already_enrolled"
	CodeCredential  Code = "credential"
	CodeKeys        Code = "tpm_keys"
	CodeServiceKey  Code = "service_key"
	CodeConflict    Code = "conflict"
	CodeForbidden   Code = "forbidden"
	CodeState       Code = "state"
	CodeFile        Code = "file"
	CodeUnavailable Code = "unavailable"
	CodeInternal    Code = "internal"
)

// Codes returns every code of this package, in the order of their numbers.
func Codes() []Code {
	return []Code{
		CodeMalformed, CodeTooLarge, CodeNotFound, CodeMethod, CodeMediaType,
		CodeRate, CodeBusy, CodeTimeout,
		CodeChallenge, CodeQuote, CodeMeasurement, CodePlatform, CodeEventLog, CodeMachine,
		CodePending, CodeRevoked, CodeCounters, CodeReleased, CodeVolume, CodePolicy,
		CodeEnrolled, CodeCredential, CodeKeys, CodeServiceKey,
		CodeConflict, CodeForbidden, CodeState, CodeFile,
		CodeUnavailable, CodeInternal,
	}
}

// Number returns the number of a code; 0 for one that is not of this package.
func (c Code) Number() int {
	switch c {
	case CodeMalformed:
		return 1001
	case CodeTooLarge:
		return 1002
	case CodeNotFound:
		return 1003
	case CodeMethod:
		return 1004
	case CodeMediaType:
		return 1005
	case CodeRate:
		return 1101
	case CodeBusy:
		return 1102
	case CodeTimeout:
		return 1103
	case CodeChallenge:
		return 1201
	case CodeQuote:
		return 1202
	case CodeMeasurement:
		return 1203
	case CodePlatform:
		return 1204
	case CodeEventLog:
		return 1205
	case CodeMachine:
		return 1206
	case CodePending:
		return 1207
	case CodeRevoked:
		return 1208
	case CodeCounters:
		return 1209
	case CodeReleased:
		return 1210
	case CodeVolume:
		return 1211
	case CodePolicy:
		return 1212
	case CodeEnrolled:
		return 1213
	case CodeCredential:
		return 1214
	case CodeKeys:
		return 1215
	case CodeServiceKey:
		return 1216
	case CodeConflict:
		return 1301
	case CodeForbidden:
		return 1302
	case CodeState:
		return 1303
	case CodeFile:
		return 1304
	case CodeUnavailable:
		return 1501
	case CodeInternal:
		return 1502
	default:
		return 0
	}
}
