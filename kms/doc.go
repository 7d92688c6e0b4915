// Package kms owns the domain: machines, volumes, keyrings, secrets and
// measurements, and what happens to them: enrol, approve, release, revoke.
//
// Invariants:
//   - Every change is one [Transactor.Transact]: what the decision depends on is
//     read, decided, written and entered into the audit log atomically.
//     What is revoked in one transaction is refused in the next.
//   - A refusal is an outcome and is committed; an error changes nothing.
//   - A secret leaves only sealed to the recipient key of a statement that the
//     machine's own AK signed over a challenge redeemed in that transaction,
//     and only after the transaction is durable. Recovery keys alone are shown to
//     an operator too, after the entry that says so is durable; and what operators
//     had wrapped for applications, sealed to the recipient key of their call.
//   - A machine's secret is unwrapped for it under the names of the keys that
//     verified this quote, never under names read from a row, and for the purpose
//     that it is about to serve.
//
// It refuses to know HTTP, a database or a driver: it declares the small
// interfaces it consumes, and takes clock and randomness from its caller.
package kms
