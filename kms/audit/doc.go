// Package audit owns the audit log: its entries, the Merkle tree over them, the
// signed heads of that tree, the proofs drawn from it, and the export that is
// verified offline. docs/formats/audit.md is its format page.
//
// Invariants:
//   - An entry has one encoding: what parses re-marshals to the same bytes.
//   - An entry has no field for a secret: names, states and claims only, each
//     bounded, in a fixed struct without maps, byte slices or interfaces.
//   - An entry is signed when it is inserted; a head is signed only over a tree
//     that extends the one signed before it (see [Append]).
//   - Entries and heads are signed by one Ed25519 key, in two disjoint domains.
//
// It refuses entries that are out of bounds, heads of another origin or key,
// and anything whose bytes are not canonical. It holds no state, starts no
// goroutine and reads no clock: the store keeps the bytes, the domain calls.
package audit
