package luks

import "fmt"

// Code is the machine-readable reason of a [Refusal]. Codes are stable: the
// service names them to operators.
type Code string

// Reasons that concern the binary header.
const (
	CodeTruncated         Code = "truncated"            // the device ends inside the header
	CodeNotLUKS           Code = "not-luks"             // no LUKS magic anywhere
	CodeLUKS1             Code = "luks1"                // a LUKS1 header
	CodeVersion           Code = "version"              // neither 1 nor 2
	CodeHeaderSize        Code = "header-size"          // not a power of two from 16 KiB to 4 MiB
	CodeHeaderOffset      Code = "header-offset"        // does not name the place it was read from
	CodeHeaderPadding     Code = "header-padding"       // reserved bytes that are not zero
	CodeHeaderText        Code = "header-text"          // malformed UUID, label or subsystem
	CodeChecksumAlgorithm Code = "checksum-algorithm"   // not sha256
	CodeChecksum          Code = "checksum"             // checksum mismatch
	CodeCopiesDiffer      Code = "header-copies-differ" // same sequence number, different content
)

// Reasons that concern the JSON area.
const (
	CodeJSONSyntax   Code = "json-syntax"   // not JSON, duplicate names, too deep
	CodeJSONTrailing Code = "json-trailing" // not padded with NUL to the end of the area
	CodeJSONShape    Code = "json-shape"    // unknown, missing or mistyped member
	CodeConfig       Code = "config"        // sizes that contradict the header
	CodeConfigFlags  Code = "config-flags"  // unknown persistent flag
	CodeRequirements Code = "requirements"  // the member at all, such as for online-reencrypt

	CodeSegmentCount      Code = "segment-count"       // other than exactly one
	CodeSegmentType       Code = "segment-type"        // not crypt
	CodeSegmentFlags      Code = "segment-flags"       // backup-*, in-reencryption, or any other
	CodeSegmentCipher     Code = "segment-cipher"      // not aes-xts-plain64
	CodeSegmentNullCipher Code = "segment-null-cipher" // data in the clear
	CodeSegmentSectorSize Code = "segment-sector-size" // not 512, 1024, 2048 or 4096
	CodeSegmentIntegrity  Code = "segment-integrity"   // authenticated encryption
	CodeSegmentRange      Code = "segment-range"       // inside the header, unaligned, beyond the device; iv_tweak beyond 2^63

	CodeDigestType    Code = "digest-type"    // not pbkdf2
	CodeDigestEmpty   Code = "digest-empty"   // without salt, hash, iterations or value
	CodeDigestHash    Code = "digest-hash"    // unknown hash
	CodeDigestCost    Code = "digest-cost"    // more iterations than a boot may take
	CodeDigestBinding Code = "digest-binding" // segment or keyslot not bound exactly once

	CodeKeyslotType    Code = "keyslot-type"     // not luks2
	CodeKeyslotKDF     Code = "keyslot-kdf"      // unknown, or without its parameters
	CodeKeyslotKeySize Code = "keyslot-key-size" // not the 32 or 64 bytes that the cipher takes
	CodeKeyslotArea    Code = "keyslot-area"     // outside the keyslots area, overlapping or too small
	CodeKeyslotShape   Code = "keyslot-shape"    // unknown priority or anti-forensic splitter
	CodeKeyslotForeign Code = "keyslot-foreign"  // asked to be opened, but not as enrolment makes them

	CodeReencryption Code = "reencryption" // not one that [Header.ValidateUnder] hands to cryptsetup

	CodeTokenKeyslots Code = "token-keyslots" // names a keyslot that does not exist
)

// Refusal says why a header is not opened. It is never an input/output error.
type Refusal struct {
	Code   Code   `json:"code"`
	Detail string `json:"detail"` // at most maxDetail bytes; quotes the header, which is not secret
}

// maxDetail bounds what a crafted header can put into a report.
const maxDetail = 200

// Error returns the code and the detail.
func (r *Refusal) Error() string {
	return fmt.Sprintf("header refused: %s: %s", r.Code, r.Detail)
}

func refuse(code Code, format string, args ...any) *Refusal {
	detail := fmt.Sprintf(format, args...)
	if len(detail) > maxDetail {
		detail = detail[:maxDetail]
	}
	return &Refusal{Code: code, Detail: detail}
}
