// Package sqlite is the embedded store: the rows of package kms in one SQLite
// database. docs/formats/store.md is its page.
//
// Invariants:
//   - A change is acknowledged after it was committed and synced to disk, whole
//     or not at all: rows, redemption and audit entries together.
//   - Changes are serial: one writer runs them one after the other, each in a
//     savepoint, and commits as a group those that were waiting together. An
//     error undoes its own savepoint only; if the commit fails, the whole group
//     gets the error and none of it is seen by anyone.
//   - Queries see committed rows only; they never wait for the writer.
//   - Entries of the audit log and hashes of its tree are only ever added.
//   - One process at a time has a store open.
//
// It refuses databases of other applications and of newer versions, and decides
// nothing: what a change means is package kms's to know.
package sqlite
