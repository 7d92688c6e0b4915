// Package local is what roots of trust share whose key is in a file of this
// host: the URI that names the file, how it is made and read, and the encryption
// under the key.
//
// Invariants:
//   - A file is durable, with its directory entry, before its maker goes on, and
//     never replaces another.
//   - A file that others than its owner can read or write is refused; a
//     credential is the service manager's to guard.
//   - No error shows a URI's values, where somebody may have put a secret, or
//     what stands in a file.
//
// It refuses to know what the roots are, and what stands in their files.
package local
