//go:build cgo

package pkcs11

import (
	"errors"
	"fmt"
	"unsafe"

	p11 "github.com/miekg/pkcs11"

	"keywright.dev/kms/root"
	"keywright.dev/kms/secret"
)

// errPIN means that the token is there and its PIN is in the way.
var errPIN = errors.New("not logged in")

// login logs in to a token, and remembers the PIN that it refused.
type login struct {
	file, credentials string
	refused           secret.Bytes
}

// in logs a session in, and with it all of this process on that token.
func (l *login) in(t *token, session p11.SessionHandle) error {
	pin, err := readPIN(l.file, l.credentials)
	if err != nil {
		return err
	}
	defer pin.Wipe()
	if err := l.mayTry(t, pin); err != nil {
		return fmt.Errorf("logging in to %s: %w: %w: %w", t, root.ErrRefused, errPIN, err)
	}
	err = t.Login(session, p11.CKU_USER, borrowed(pin))
	switch {
	case err == nil, isCode(err, p11.CKR_USER_ALREADY_LOGGED_IN):
		l.refused.Wipe()
		return nil
	case isCode(err, p11.CKR_PIN_INCORRECT, p11.CKR_PIN_INVALID, p11.CKR_PIN_LEN_RANGE):
		l.refused.Wipe()
		l.refused = pin.Clone()
		return l.failed(t, err, "write the right PIN to "+l.file+"; this one is not tried again before a restart")
	case isCode(err, p11.CKR_PIN_LOCKED):
		return l.failed(t, err, "have the security officer unlock it")
	case isCode(err, p11.CKR_PIN_EXPIRED, p11.CKR_USER_PIN_NOT_INITIALIZED):
		return l.failed(t, err, "the PIN file is "+l.file)
	default:
		return fmt.Errorf("logging in to %s: C_Login: %w", t, err)
	}
}

// mayTry keeps us from locking the token: a try is spent only on a PIN that was not
// refused before, and never the last one.
func (l *login) mayTry(t *token, pin secret.Bytes) error {
	switch {
	case l.refused.Len() > 0 && l.refused.Equal(pin):
		return fmt.Errorf("the token refused the PIN in %s before, and it is not tried again: write the right one there", l.file)
	case t.info.Flags&p11.CKF_USER_PIN_LOCKED != 0:
		return errors.New("the PIN is locked: have the security officer unlock it")
	case t.info.Flags&p11.CKF_USER_PIN_FINAL_TRY != 0:
		return errors.New("one try is left before the PIN is locked, and it is yours: log in by hand with the right PIN, for example by pkcs11-tool --login")
	default:
		return nil
	}
}

func (l *login) failed(t *token, err error, todo string) error {
	return classed(fmt.Errorf("logging in to %s: %w: C_Login: %w; %s", t, errPIN, err, todo))
}

// borrowed shows a secret as a string without a copy that could not be wiped. It is
// valid as long as the secret.
func borrowed(s secret.Bytes) string {
	b := s.Expose()
	return unsafe.String(unsafe.SliceData(b), len(b)) //nolint:gosec // a copy would stay in memory
}
