// Package pkcs11 is a root of trust on a PKCS#11 token: AES-GCM under an AES-256
// key that never leaves it.
//
// Invariants:
//   - The key is one of a token object, sensitive and never extractable; what it
//     is allowed and what it is, is checked at every connection, and the token
//     must then open what it encrypted.
//   - What the URI says identifies exactly one token and one key. The root's name
//     is the token's serial number and the key's CKA_ID, which no other secret key
//     of the token has.
//   - A PIN that the token refused is not tried again until its file has another
//     one, nor is a token's last try ever used.
//   - A call of the module cannot be interrupted, its caller is let go when its
//     context ends: at most [maxCalls] are under way.
//   - A connection that broke is replaced once in a call, module and login anew.
//
// It refuses a PIN in the URI, a PIN file that others can read, vendor attributes,
// and slots, whose numbers change. Without cgo there is no PKCS#11, and Open says
// in which binary there is.
package pkcs11

import (
	"errors"
	"io"
)

// Settings is what a root needs beside its URI.
type Settings struct {
	// Random is read by several goroutines at once.
	Random io.Reader
	// Modules are those of the process. Nil where no other root shares one.
	Modules *Modules
	// Credentials is the folder in which the service manager passes credentials
	// (systemd.exec(5)); a PIN file in it is the manager's to guard. May be empty.
	Credentials string
}

// maxCalls bounds the calls under way, those that hang included, and the
// sessions that are open on the token.
const maxCalls = 8

// ErrExists is returned by [Init] where there is such a key.
var ErrExists = errors.New("such a key exists already")
