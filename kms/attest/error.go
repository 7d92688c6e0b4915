package attest

import "fmt"

// Code is a stable name of a reason to refuse evidence. docs/attestation.md
// explains each.
type Code string

// Reasons to refuse a quote.
const (
	QuoteSize      Code = "quote_size"
	QuoteMalformed Code = "quote_malformed"
	QuoteKey       Code = "quote_key"
	QuoteSignature Code = "quote_signature"
	QuoteMagic     Code = "quote_magic"
	QuoteType      Code = "quote_type"
	QuoteSigner    Code = "quote_signer"
	QuoteExtraData Code = "quote_extra_data"
	QuoteSelection Code = "quote_selection"
	QuoteDigest    Code = "quote_digest"
)

// Reasons to refuse an event log or what it says.
const (
	PCRZero      Code = "pcr_zero"
	PCRMismatch  Code = "pcr_mismatch"
	LogSize      Code = "log_size"
	LogMalformed Code = "log_malformed"
	LogLegacy    Code = "log_legacy"
	LogBank      Code = "log_bank"
	LogLocality  Code = "log_locality"
	LogSeparator Code = "log_separator"
)

// Reasons to refuse an endorsement key's certificate.
const (
	EKCertificateMalformed Code = "ek_certificate_malformed"
	EKCertificateKey       Code = "ek_certificate_key"
)

// Error is a reason to refuse evidence.
type Error struct {
	Code Code
	// Detail tells an operator what was found and what was expected. It holds
	// numbers and digests, never text that the evidence chose.
	Detail string
}

// Error returns code and detail.
func (e *Error) Error() string { return string(e.Code) + ": " + e.Detail }

func refuse(code Code, format string, args ...any) *Error {
	return &Error{code, fmt.Sprintf(format, args...)}
}
