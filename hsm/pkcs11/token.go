//go:build cgo

package pkcs11

import (
	"fmt"
	"strings"

	p11 "github.com/miekg/pkcs11"

	"keywright.dev/kms/root"
)

// token is the one that an address identifies, with its module in use.
type token struct {
	*module
	slot uint
	info p11.TokenInfo
}

// maxListed bounds what an error lists.
const maxListed = 8

func (m *Modules) token(a *address) (*token, error) {
	mod, err := m.use(a.module)
	if err != nil {
		return nil, err
	}
	t, err := findToken(mod, a)
	if err != nil {
		m.done(mod)
		return nil, fmt.Errorf("looking for the token in %s: %w", a.module, err)
	}
	return t, nil
}

func findToken(mod *module, a *address) (*token, error) {
	slots, err := mod.GetSlotList(true)
	if err != nil {
		return nil, fmt.Errorf("C_GetSlotList: %w", err)
	}
	var found, near, others []*token
	for _, slot := range slots {
		info, err := mod.GetTokenInfo(slot)
		if err != nil || info.Flags&p11.CKF_TOKEN_INITIALIZED == 0 {
			continue // it was just taken away, or is still blank
		}
		t := &token{mod, slot, info}
		switch {
		case t.is(a):
			found = append(found, t)
		case info.SerialNumber == a.serial:
			near = append(near, t)
		default:
			others = append(others, t)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return nil, fmt.Errorf("%w: several tokens are what the URI says, %s: tell which one by serial", root.ErrRefused, list(found))
	case len(near) > 0:
		return nil, fmt.Errorf("%w: the token of this serial number is not what else the URI says, but %s", root.ErrRefused, list(near))
	default:
		return nil, fmt.Errorf("%w: it is not there; there is %s", root.ErrUnavailable, list(others))
	}
}

func (t *token) is(a *address) bool {
	for _, f := range []struct{ want, have string }{
		{a.token, t.info.Label},
		{a.serial, t.info.SerialNumber},
		{a.manufacturer, t.info.ManufacturerID},
		{a.model, t.info.Model},
	} {
		if f.want != "" && f.want != f.have {
			return false
		}
	}
	return true
}

func (t *token) String() string {
	return fmt.Sprintf("token=%q serial=%q", t.info.Label, t.info.SerialNumber)
}

func list[T fmt.Stringer](all []T) string {
	if len(all) == 0 {
		return "none"
	}
	var texts []string
	for _, one := range all[:min(len(all), maxListed)] {
		texts = append(texts, one.String())
	}
	if more := len(all) - len(texts); more > 0 {
		texts = append(texts, fmt.Sprintf("%d more", more))
	}
	return strings.Join(texts, ", ")
}

func (t *token) session(flags uint) (p11.SessionHandle, error) {
	session, err := t.OpenSession(t.slot, p11.CKF_SERIAL_SESSION|flags)
	if err != nil {
		return 0, fmt.Errorf("opening a session on %s: C_OpenSession: %w", t, err)
	}
	return session, nil
}
