//go:build integration && cgo

package pkcs11_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	p11 "github.com/miekg/pkcs11"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/hsm/pkcs11"
	"keywright.dev/kms/root"
)

func TestWrongPINIsTriedOnce(t *testing.T) {
	h := newFaultyHSM(t)
	uri := h.makeKey(t, "root")
	before := h.open(t, uri)
	w := wrap(t, before)
	before.Close(t.Context())
	tried := h.calls(t, "C_Login")

	h.writePIN(t, "0000-wrong")
	r := h.open(t, uri) // else the service manager would start it again, and try again
	for range 5 {
		err := fails(t, r, w, root.ErrRefused)
		require.ErrorContains(t, err, h.pin)
		require.NotContains(t, err.Error(), "0000-wrong")
	}
	assert.Equal(t, 1, h.calls(t, "C_Login")-tried)
	h.writePIN(t, "0001-wrong too")
	fails(t, r, w, root.ErrRefused)
	fails(t, r, w, root.ErrRefused)
	assert.Equal(t, 2, h.calls(t, "C_Login")-tried)
	h.writePIN(t, userPIN)
	opens(t, r, w)
	assert.Equal(t, 3, h.calls(t, "C_Login")-tried)
}

func TestLockedPIN(t *testing.T) {
	const finalTry, locked = "20000", "40000"
	h := newFaultyHSM(t)
	uri := h.makeKey(t, "root")
	r := h.open(t, uri)
	w := wrap(t, r)
	r.Close(t.Context())
	for flags, says := range map[string]string{finalTry: "one try is left", locked: "locked"} {
		h.say(t, "flags", flags)
		tried := h.calls(t, "C_Login")
		r := h.open(t, uri)
		require.ErrorContains(t, fails(t, r, w, root.ErrRefused), says)
		assert.Equal(t, tried, h.calls(t, "C_Login"), "no try is spent")
		h.healed(t, "flags")
		opens(t, r, w)
		r.Close(t.Context())
	}
	for _, code := range []p11.Error{p11.CKR_PIN_LOCKED, p11.CKR_PIN_EXPIRED, p11.CKR_USER_PIN_NOT_INITIALIZED} {
		h.fault(t, "C_Login", code, 2)
		r := h.open(t, uri)
		require.ErrorContains(t, fails(t, r, w, root.ErrRefused), code.Error())
		opens(t, r, w) // once the security officer has mended it
		r.Close(t.Context())
	}
}

func TestPINLocksWhileConnected(t *testing.T) {
	h := newFaultyHSM(t)
	r := h.open(t, h.makeKey(t, "root"))
	w := wrap(t, r)
	h.fault(t, "C_DecryptInit", p11.CKR_USER_NOT_LOGGED_IN, 1)
	h.fault(t, "C_Login", p11.CKR_PIN_LOCKED, 1)
	require.ErrorContains(t, fails(t, r, w, root.ErrRefused), "security officer")
	opens(t, r, w)
}

func TestPINFileIsPrivate(t *testing.T) {
	h := newHSM(t)
	uri := h.makeKey(t, "root")
	for mode, says := range map[os.FileMode]string{0o644: "chmod 600", 0o640: "chmod 600", 0o604: "chmod 600"} {
		require.NoError(t, os.Chmod(h.pin, mode))
		require.ErrorContains(t, h.refused(t, uri), says)
	}
	require.NoError(t, os.Chmod(h.pin, 0o600))
	if os.Geteuid() == 0 { // who else could give it away
		require.NoError(t, os.Chown(h.pin, 1, 1))
		require.ErrorContains(t, h.refused(t, uri), "run chown")
		require.NoError(t, os.Chown(h.pin, 0, 0))
	}
	for _, content := range []string{"", "\n", userPIN + "\n\n", userPIN + "\nmore", userPIN + "\x00", strings.Repeat("1", 300)} {
		require.NoError(t, os.WriteFile(h.pin, []byte(content), 0o600))
		require.ErrorContains(t, h.refused(t, uri), h.pin)
	}
	require.NoError(t, os.Remove(h.pin))
	require.ErrorContains(t, h.refused(t, uri), "no such file")
	require.NoError(t, os.Mkdir(h.pin, 0o700))
	require.ErrorContains(t, h.refused(t, uri), "not a regular file")
	_, err := pkcs11.Init(t.Context(), uri, h.settings())
	require.ErrorIs(t, err, root.ErrRefused)
}

func TestPINMayBeACredential(t *testing.T) {
	h := newHSM(t)
	uri := h.makeKey(t, "root")
	require.NoError(t, os.Chmod(h.pin, 0o440))
	require.ErrorContains(t, h.refused(t, uri), "chmod 600")
	settings := h.settings()
	settings.Credentials = filepath.Dir(h.pin)
	r, err := pkcs11.Open(t.Context(), uri, settings)
	require.NoError(t, err)
	h.closeAtEnd(t, r)
	require.NoError(t, os.Chmod(h.pin, 0o444))
	_, err = pkcs11.Open(t.Context(), uri, settings)
	require.ErrorContains(t, err, "everybody")
}
