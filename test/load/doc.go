// Package load drives the real service with fleets of simulated machines: the
// service is a process of its own with its own data folder, its own limits and
// nothing switched off, and each machine has its own TPM, its own address on
// loopback and its own connections.
//
// Invariants:
//   - What the service promised is checked from outside: by what machines
//     received, by the exported audit log, and by the files it left.
//   - A machine retries as a guest does: with a fresh challenge, and only what a
//     guest may retry.
//
// It refuses to be part of a binary: only tests import it.
package load
