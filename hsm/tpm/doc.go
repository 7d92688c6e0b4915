// Package tpm owns the machine's TPM 2.0: its endorsement key (EK), our
// attestation key (AK), credential activation, quotes with the PCR values and
// event log that belong to them, PCR 15, and the sealing of a short secret.
//
// Invariants:
//   - Both keys are checked against the templates of package exchange, and the
//     EK against the machine id where one is expected, before anything relies
//     on them.
//   - Quotes, PCR reads and extends of an [Identity] run in an HMAC session
//     salted to the EK; a credential is activated in one that encrypts
//     parameters too. So whoever sits on the wire between processor and TPM
//     sees no secret and alters no answer unnoticed.
//   - What is sealed or unsealed crosses the bus encrypted, in a session salted to
//     the storage root key; at an unsealing that is the key which sealed.
//   - Nothing stays in the TPM: each transient object and session is flushed on
//     every path, for a TPM without a resource manager has room for three.
//   - A [Device] may be used by several goroutines; each call is atomic.
//
// It refuses to give an [Identity] of another machine than the expected one,
// and PCR values that are not those of the quote beside them.
//
// What an interposer on the bus can still do: drop commands, so that calls fail;
// stand in for the whole TPM with an EK of its own where no machine is expected,
// as at enrolment, which is why the service wants the EK's certificate or a
// person's approval, or when something is sealed; lie to [Device.PCR15] and
// [Device.ExtendPCR15], which have no session; and reset a discrete TPM alone and
// replay measurements of its choice into it, which no session prevents.
package tpm
