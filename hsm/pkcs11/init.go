//go:build cgo

package pkcs11

import (
	"context"
	"fmt"
	"io"

	p11 "github.com/miekg/pkcs11"

	"keywright.dev/kms/root"
)

const newIDSize = 16

// Init makes the key that uri identifies, with a random id where it has none, and
// returns the URI to configure, with everything that Open wants. Where one of the
// token's secret keys has the id or the label already, it is [ErrExists] and
// nothing is made.
func Init(ctx context.Context, uri string, s Settings) (string, error) {
	r, err := prepare(uri, s)
	if err != nil {
		return "", fmt.Errorf("making a key on a PKCS#11 token: %w", err)
	}
	defer r.Close(ctx)
	r.writes = true
	made, err := call(ctx, r, job[string]{do: func(ctx context.Context, c *connection) (made string, err error) {
		err = c.withSession(ctx, func(session p11.SessionHandle) error {
			made, err = c.initialize(session, r.at)
			return err
		})
		return made, err
	}})
	if err != nil {
		return "", fmt.Errorf("making a key on the token of %s: %w", r.at.String(), err)
	}
	return made, nil
}

func (c *connection) initialize(session p11.SessionHandle, a address) (string, error) {
	if err := c.none(session, a); err != nil {
		return "", err
	}
	if len(a.id) == 0 {
		a.id = make([]byte, newIDSize)
		if _, err := io.ReadFull(c.random, a.id); err != nil {
			return "", fmt.Errorf("reading random bytes: %w", err)
		}
	}
	handle, err := c.generate(session, a)
	if err != nil {
		return "", err
	}
	if err := c.proven(session, &a); err != nil {
		// It has wrapped nothing yet.
		if gone := c.DestroyObject(session, handle); gone != nil {
			return "", fmt.Errorf("%w; and the new key with id=%s stays: C_DestroyObject: %w", err, encodeID(a.id), gone)
		}
		return "", err
	}
	a.serial, a.token = c.info.SerialNumber, c.info.Label
	return a.String(), nil
}

// none refuses where a key has the id or the label.
func (c *connection) none(session p11.SessionHandle, a address) error {
	for _, one := range []address{{id: a.id}, {object: a.object}} {
		if len(one.id) == 0 && one.object == "" {
			continue
		}
		found, err := c.keys(session, one.id, one.object)
		if err != nil {
			return err
		}
		if len(found) > 0 {
			return fmt.Errorf("%w: %w on %s: %s", root.ErrRefused, ErrExists, c.token, list(found))
		}
	}
	return nil
}

func (c *connection) generate(session p11.SessionHandle, a address) (p11.ObjectHandle, error) {
	template := []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_SECRET_KEY),
		p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_AES),
		p11.NewAttribute(p11.CKA_VALUE_LEN, root.KeySize),
		p11.NewAttribute(p11.CKA_ID, a.id),
		p11.NewAttribute(p11.CKA_TOKEN, true),
		p11.NewAttribute(p11.CKA_PRIVATE, true),
		p11.NewAttribute(p11.CKA_SENSITIVE, true),
		p11.NewAttribute(p11.CKA_EXTRACTABLE, false),
		p11.NewAttribute(p11.CKA_ENCRYPT, true),
		p11.NewAttribute(p11.CKA_DECRYPT, true),
		// A key that wraps other keys of the token could bring them out.
		p11.NewAttribute(p11.CKA_WRAP, false),
		p11.NewAttribute(p11.CKA_UNWRAP, false),
	}
	if a.object != "" {
		template = append(template, p11.NewAttribute(p11.CKA_LABEL, a.object))
	}
	handle, err := c.GenerateKey(session, []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_KEY_GEN, nil)}, template)
	if err != nil {
		return 0, fmt.Errorf("having %s make a key: C_GenerateKey: %w", c.token, err)
	}
	return handle, nil
}
