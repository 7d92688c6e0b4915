//go:build cgo

package pkcs11

import (
	"errors"
	"fmt"
	"slices"

	p11 "github.com/miekg/pkcs11"

	"keywright.dev/kms/root"
)

// broken returns the codes after which a connection is of no use, and another one
// may be.
func broken() []p11.Error {
	return []p11.Error{
		p11.CKR_DEVICE_REMOVED, p11.CKR_TOKEN_NOT_PRESENT, p11.CKR_TOKEN_NOT_RECOGNIZED, p11.CKR_SLOT_ID_INVALID,
		p11.CKR_DEVICE_ERROR, p11.CKR_GENERAL_ERROR, p11.CKR_FUNCTION_FAILED, p11.CKR_CRYPTOKI_NOT_INITIALIZED,
		p11.CKR_SESSION_HANDLE_INVALID, p11.CKR_SESSION_CLOSED, p11.CKR_USER_NOT_LOGGED_IN,
		p11.CKR_KEY_HANDLE_INVALID, p11.CKR_OBJECT_HANDLE_INVALID, p11.CKR_OPERATION_ACTIVE,
	}
}

// refusals returns the codes that stay until somebody changes token or
// configuration, with what to say of them.
func refusals() map[p11.Error]string {
	const key = "the key is not allowed this: see CKA_ENCRYPT and CKA_DECRYPT"
	const mechanism = "the token has no AES-GCM for this key: see pkcs11-tool --list-mechanisms"
	return map[p11.Error]string{
		p11.CKR_KEY_FUNCTION_NOT_PERMITTED:     key,
		p11.CKR_KEY_TYPE_INCONSISTENT:          key,
		p11.CKR_KEY_SIZE_RANGE:                 mechanism,
		p11.CKR_MECHANISM_INVALID:              mechanism,
		p11.CKR_MECHANISM_PARAM_INVALID:        "the token does not take the parameters of AES-GCM: 12 bytes of IV, a tag of 16, the context as AAD",
		p11.CKR_FUNCTION_NOT_SUPPORTED:         mechanism,
		p11.CKR_USER_PIN_NOT_INITIALIZED:       "the token's user has no PIN yet: the security officer sets it",
		p11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN: "somebody else is logged in to the token in this process",
		p11.CKR_USER_TYPE_INVALID:              "the token knows no user of this type",
		p11.CKR_TOKEN_WRITE_PROTECTED:          "the token is write-protected",
		p11.CKR_ATTRIBUTE_VALUE_INVALID:        "the token does not make keys with these attributes",
		p11.CKR_TEMPLATE_INCONSISTENT:          "the token does not make keys with these attributes",
		p11.CKR_SESSION_READ_ONLY:              "the token gives no session that writes",
		p11.CKR_PIN_LOCKED:                     "the PIN is locked",
		p11.CKR_PIN_INCORRECT:                  "the PIN is wrong",
		p11.CKR_PIN_INVALID:                    "the PIN is no PIN for this token",
		p11.CKR_PIN_LEN_RANGE:                  "the PIN is too long or too short for this token",
		p11.CKR_PIN_EXPIRED:                    "the PIN has expired: set another one and write it to the file",
		p11.CKR_FUNCTION_REJECTED:              "the token's policy rejects it",
	}
}

// isCode reports whether err comes from a call that ended with one of codes.
func isCode(err error, codes ...p11.Error) bool {
	var code p11.Error
	return errors.As(err, &code) && slices.Contains(codes, code)
}

// lost reports whether err means that the connection is of no use any more.
func lost(err error) bool { return !hasClass(err) && isCode(err, broken()...) }

// classed gives err its class, if it has none: a code that nobody knows may go.
func classed(err error) error {
	if err == nil || hasClass(err) {
		return err
	}
	var code p11.Error
	if errors.As(err, &code) {
		if why, ok := refusals()[code]; ok {
			return fmt.Errorf("%w: %s: %w", root.ErrRefused, why, err)
		}
	}
	return fmt.Errorf("%w: %w", root.ErrUnavailable, err)
}

func hasClass(err error) bool {
	return errors.Is(err, root.ErrUnavailable) || errors.Is(err, root.ErrRefused) || errors.Is(err, root.ErrDoesNotOpen)
}

// altered returns the codes with which a token says that a ciphertext, its IV or
// its AAD are not what it made. The last one is of PKCS#11 3.0.
func altered() []p11.Error {
	const aeadDecryptFailed = 0x42
	return []p11.Error{p11.CKR_ENCRYPTED_DATA_INVALID, p11.CKR_ENCRYPTED_DATA_LEN_RANGE, aeadDecryptFailed}
}

// vague returns the codes that may mean the same, or anything.
func vague() []p11.Error {
	return []p11.Error{p11.CKR_GENERAL_ERROR, p11.CKR_FUNCTION_FAILED, p11.CKR_DATA_INVALID, p11.CKR_DATA_LEN_RANGE, p11.CKR_ARGUMENTS_BAD}
}
