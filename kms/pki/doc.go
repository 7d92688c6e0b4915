// Package pki owns the service's asymmetric keys: the certificate authority,
// the server certificates that it issues, and the service identity key.
//
// Two kinds of trust, never confused:
//   - The identity key signs what a guest must believe. Its fingerprint, pinned
//     in every initramfs, is what --service-key takes: "sha256:" and 64
//     lower-case hex digits of the SHA-256 of its SubjectPublicKeyInfo in DER.
//   - The authority and its server certificates serve the transport alone. A
//     guest has no clock that it could trust, so it relies on no date in them;
//     whoever terminates TLS in between gains nothing.
//
// Invariants: every key is ECDSA P-256; a private key that is to be stored
// leaves as PKCS#8 in a [secret.Bytes] only, for the domain to wrap; private
// keys of server certificates are never stored. Keys come from the Go
// Cryptographic Module's own generator, since the standard library takes no
// other source any more.
//
// It refuses keys of another algorithm or curve, and a certificate that does
// not belong to its key.
package pki
