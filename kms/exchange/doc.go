// Package exchange owns what guest and service must agree on to the byte: the
// statement that a quote signs, the message that comes back, how it is sealed
// and signed, the TPM key templates and the PCR selection.
//
// Invariants:
//   - Every binary form has one encoding: what parses marshals again to the
//     same bytes, and nothing follows it.
//   - Every hash, signature and key derivation begins with a label of its own.
//   - Secrets leave in one way only: sealed (HPKE, RFC 9180, with a hybrid
//     post-quantum KEM) to the ephemeral key that the statement names.
//
// It refuses to hold state, to reach a device or a network, and to decide
// anything about trust. docs/protocol.md and docs/formats/exchange.md are the
// specification.
package exchange
