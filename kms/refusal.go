package kms

import (
	"errors"
	"fmt"

	"keywright.dev/kms/attest"
)

// Reason is the machine-readable reason of a refusal. The guest is told the
// reason alone; what differed is for operators.
type Reason string

// The reasons.
const (
	ReasonMalformed   Reason = "malformed"
	ReasonChallenge   Reason = "challenge"
	ReasonQuote       Reason = "quote"
	ReasonEventLog    Reason = "event_log"
	ReasonMachine     Reason = "machine_unknown"
	ReasonPending     Reason = "machine_pending"
	ReasonRevoked     Reason = "machine_revoked"
	ReasonCounters    Reason = "counters"
	ReasonReleased    Reason = "already_released"
	ReasonRate        Reason = "rate_limited"
	ReasonMeasurement Reason = "measurement"
	ReasonPlatform    Reason = "platform"
	ReasonVolume      Reason = "volume"
	ReasonPolicy      Reason = "policy"
	ReasonEnrolled    Reason = "already_enrolled"
	ReasonCredential  Reason = "credential"
	ReasonKeys        Reason = "tpm_keys"
	ReasonServiceKey  Reason = "service_key"
	ReasonUnreleased  Reason = "not_released"
	ReasonKeyring     Reason = "keyring"
	ReasonOrder       Reason = "not_ordered"
	ReasonRestored    Reason = "restored"
	ReasonHandedOut   Reason = "handed_out"
	// ReasonCiphertext is of single items of the key API.
	ReasonCiphertext Reason = "ciphertext"
)

// Reasons returns every reason, so that a table over them can be checked.
func Reasons() []Reason {
	return []Reason{
		ReasonMalformed, ReasonChallenge, ReasonQuote, ReasonEventLog, ReasonMachine, ReasonPending,
		ReasonRevoked, ReasonCounters, ReasonReleased, ReasonRate, ReasonMeasurement, ReasonPlatform,
		ReasonVolume, ReasonPolicy, ReasonEnrolled, ReasonCredential, ReasonKeys, ReasonServiceKey, ReasonUnreleased,
		ReasonKeyring, ReasonOrder, ReasonRestored, ReasonHandedOut, ReasonCiphertext,
	}
}

// Refusal is an answer: the request was understood, and the answer is no.
type Refusal struct {
	Reason Reason
	// Detail is for operators. It repeats no value that the request chose.
	Detail string
}

// Error returns reason and detail.
func (r *Refusal) Error() string { return string(r.Reason) + ": " + r.Detail }

func refuse(reason Reason, format string, args ...any) *Refusal {
	return &Refusal{reason, fmt.Sprintf(format, args...)}
}

// refuseReplay is for a request that was made before, with the challenge that it
// was signed for. It is recorded against the machine and changes nothing else:
// only fresh evidence says anything about a machine. Old evidence beside a new
// challenge does not come this far.
func refuseReplay() *Refusal {
	return refuse(ReasonChallenge, "the challenge was redeemed before")
}

// refuseEvidence turns an error of package attest into a refusal.
func refuseEvidence(reason Reason, err error) *Refusal {
	var known *attest.Error
	if errors.As(err, &known) {
		return &Refusal{reason, known.Error()}
	}
	return &Refusal{reason, "the evidence cannot be read"}
}

// UsageError is an operator's request that cannot be carried out as it is; the
// text says what to do instead. It repeats no value that the request chose.
type UsageError struct {
	Text string
}

// Error returns the text.
func (e *UsageError) Error() string { return e.Text }

// StateError is an operator's request that what is there does not allow, such
// as the approval of a machine that is revoked; the text says what to do instead.
type StateError struct {
	Text string
}

// Error returns the text.
func (e *StateError) Error() string { return e.Text }

func disallow(format string, args ...any) *StateError {
	return &StateError{fmt.Sprintf(format, args...)}
}

func usage(format string, args ...any) *UsageError {
	return &UsageError{fmt.Sprintf(format, args...)}
}
