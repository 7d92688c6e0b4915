//go:build integration && cgo

package pkcs11_test

import (
	"strconv"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"

	"keywright.dev/kms/root"
	"keywright.dev/kms/root/roottest"
)

func subject(t *testing.T, h *hsm) roottest.Subject {
	t.Helper()
	uri := h.makeKey(t, "root")
	return roottest.Subject{
		Root:   h.open(t, uri),
		Again:  func(t testing.TB) root.Root { return h.open(t, uri) },
		Other:  func(t testing.TB) root.Root { return h.open(t, h.makeKey(t, "other")) },
		Forbid: h.forbid,
		Down:   h.takeAway,
		Up:     h.bringBack,
	}
}

func TestConformance(t *testing.T) {
	roottest.Run(t, func(t *testing.T) roottest.Subject { return subject(t, newHSM(t)) })
}

// The same before a token that is pulled out, and one that takes long.
func TestConformanceOfAFaultyToken(t *testing.T) {
	roottest.Run(t, func(t *testing.T) roottest.Subject {
		h := newFaultyHSM(t)
		s := subject(t, h)
		gone := map[string]p11.Error{
			"C_EncryptInit": p11.CKR_DEVICE_REMOVED, "C_DecryptInit": p11.CKR_SESSION_HANDLE_INVALID, "C_OpenSession": p11.CKR_TOKEN_NOT_PRESENT,
		}
		s.Down = func(t testing.TB) {
			for function, code := range gone {
				h.fault(t, function, code, -1)
			}
		}
		s.Up = func(t testing.TB) {
			for function := range gone {
				h.healed(t, function)
			}
		}
		s.Slow = func(t testing.TB, d time.Duration) {
			if d == 0 {
				h.healed(t, "slow")
				return
			}
			h.say(t, "slow", strconv.FormatInt(d.Milliseconds(), 10))
		}
		return s
	})
}
