// Package sealed is a root of trust whose AES-256 key only the TPM of this server
// can read: it is sealed under the TPM's storage root key, to PCRs where the URI
// names some, and lies in a file.
//
// Invariants:
//   - The key is unsealed for each call, in a session that encrypts it on the bus,
//     and wiped when the call ends; between calls the process does not have it.
//   - The root's name is that of the sealed object: the file may move.
//   - A new file is durable before it wraps anything, and replaces none.
//   - A call ends with its context, and one at a time uses the TPM. A command that
//     a TPM does not answer delays the calls after it, which end with theirs.
//
// It refuses to protect against whoever has the file and may use this TPM, such as
// the host's root: the sealed object has no password. It is for what leaves the
// host, such as a disk or a backup. And it refuses to be the only root: with the
// TPM the key is gone.
//
// What go-tpm and crypto/aes leave in memory of a key that was used, the garbage
// collector reuses; nothing wipes it.
package sealed
