// Package local is what roots of trust share that read files of this host, with
// their key, its custodians or credentials: the URI that names the file, how it is
// made and read, and the encryption under a key in it.
//
// Invariants:
//   - A file is durable, with its directory entry, before its maker goes on, and
//     never replaces another.
//   - A file with a key that others than its owner can read or write is refused; a
//     credential is the service manager's to guard.
//   - No error shows a URI's values, or keys that look like one, where somebody may have put a secret, or
//     what stands in a file.
//
// It refuses to know what the roots are, and what stands in their files.
package local
