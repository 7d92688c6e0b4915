// Package api owns the wire: the types of every request and answer, the paths,
// the error codes, the limits, and the Go client for them.
//
// Invariants:
//   - No type here has room for a secret in the clear: secrets cross the wire
//     only inside [Sealed], encrypted to the caller's own ephemeral key.
//   - An error code, once released, keeps its meaning and its number.
//
// It refuses to interpret evidence or to decide anything. Byte slices are
// base64 (RFC 4648 section 4) in JSON; times are RFC 3339 in UTC.
package api
