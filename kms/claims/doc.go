// Package claims owns the facts that attestation speaks in: their names, their
// canonical form, the digest that people approve, and the difference of two
// sets of them.
//
// Invariants:
//   - A [Set] never changes, has exactly one canonical form, and what [Parse]
//     accepts marshals again to the same bytes.
//   - The canonical form begins with its version and its [Kind], so that no two
//     kinds of set ever share a digest.
//   - Order counts: a set lists facts in the order in which they were measured,
//     because the PCRs that vouch for them depend on that order.
//   - [Diff] returns nothing exactly when two sets are equal.
//
// It refuses to know where a claim came from: package attest derives claims
// from evidence, package predict from the files of the next boot, and both use
// the names defined here. docs/formats/claims.md is the specification.
package claims
