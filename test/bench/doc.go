// Package bench measures what Keywright costs beside what it cannot do without
// and beside its peers, in the same run: docs/performance.md explains each line.
//
// Invariants:
//   - A figure that is compared is a ratio: both sides ran in this run, turn and
//     turn about, on this machine.
//   - The service measured is the real one, in a process of its own.
//
// It refuses to be part of a binary: it holds tests only.
package bench
