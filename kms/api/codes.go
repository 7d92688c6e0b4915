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
	CodeHandedOut   Code = "handed_out"
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
	CodeUnreleased  Code = "not_released"
	CodeKeyring     Code = "keyring"
	CodeCiphertext  Code = "ciphertext"
	CodeOrder       Code = "not_ordered"
	CodeRestored    Code = "restored"
	CodeConflict    Code = "conflict"
	CodeForbidden   Code = "forbidden"
	CodeState       Code = "state"
	CodeFile        Code = "file"
	CodeInUse       Code = "in_use"
	CodeUnavailable Code = "unavailable"
	CodeInternal    Code = "internal"
	CodeRoots       Code = "roots_unavailable"
)

// numbered is a code with its number, which never changes.
type numbered struct {
	code   Code
	number int
}

// numbers returns every code, in the order of their numbers.
func numbers() []numbered {
	return []numbered{
		{CodeMalformed, 1001},
		{CodeTooLarge, 1002},
		{CodeNotFound, 1003},
		{CodeMethod, 1004},
		{CodeMediaType, 1005},
		{CodeRate, 1101},
		{CodeBusy, 1102},
		{CodeTimeout, 1103},
		{CodeHandedOut, 1104},
		{CodeChallenge, 1201},
		{CodeQuote, 1202},
		{CodeMeasurement, 1203},
		{CodePlatform, 1204},
		{CodeEventLog, 1205},
		{CodeMachine, 1206},
		{CodePending, 1207},
		{CodeRevoked, 1208},
		{CodeCounters, 1209},
		{CodeReleased, 1210},
		{CodeVolume, 1211},
		{CodePolicy, 1212},
		{CodeEnrolled, 1213},
		{CodeCredential, 1214},
		{CodeKeys, 1215},
		{CodeServiceKey, 1216},
		{CodeUnreleased, 1217},
		{CodeKeyring, 1218},
		{CodeCiphertext, 1219},
		{CodeOrder, 1220},
		{CodeRestored, 1221},
		{CodeConflict, 1301},
		{CodeForbidden, 1302},
		{CodeState, 1303},
		{CodeFile, 1304},
		{CodeInUse, 1305},
		{CodeUnavailable, 1501},
		{CodeInternal, 1502},
		{CodeRoots, 1503},
	}
}

// Codes returns every code of this package, in the order of their numbers.
func Codes() []Code {
	var codes []Code
	for _, n := range numbers() {
		codes = append(codes, n.code)
	}
	return codes
}

// Number returns the number of a code; 0 for one that is not of this package.
func (c Code) Number() int {
	for _, n := range numbers() {
		if n.code == c {
			return n.number
		}
	}
	return 0
}

// Unavailable tells whether another server of the same service may do what this
// one says it cannot do now.
func (c Code) Unavailable() bool { return c == CodeUnavailable || c == CodeRoots }
