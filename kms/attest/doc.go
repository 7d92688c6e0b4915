// Package attest turns evidence into facts: it verifies a TPM quote, replays
// the event log against it, and names what was measured as claims, or gives a
// reason why not. It also judges whether an endorsement key can be trusted.
//
// Invariants:
//   - Nothing is a fact that the quote's signature does not cover. Of the
//     event log only digests count, and event data only where it hashes to the
//     event's digest. Event types, labels and file names are never trusted.
//   - The sets of claims of a boot determine its PCR values: two boots with
//     equal measurement, platform and phase have equal PCRs 0 to 9 and 11 to
//     14. So whatever was written into a log, approved claims mean approved
//     PCRs. What GRUB's commands and its environment block leave open decides
//     nothing: see readGRUB.
//   - Every event of those PCRs is named or lands in [claims.Unexplained], in
//     the set that its PCR belongs to. The set is chosen by the PCR's number,
//     which the quote covers, never by the event's type.
//   - All bytes come from outside: lengths, counts and totals are bounded, and
//     nothing may follow.
//
// It refuses SHA-1 logs, banks other than SHA-256, PCRs that do not replay and
// firmware that measured nothing. It holds no state but a bounded cache, asks
// no clock, reads no files and decides nothing about policy.
//
// docs/attestation.md tells what is measured where, and lists the error codes.
package attest
