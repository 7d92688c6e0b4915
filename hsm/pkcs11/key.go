//go:build cgo

package pkcs11

import (
	"bytes"
	"errors"
	"fmt"

	p11 "github.com/miekg/pkcs11"

	"keywright.dev/kms/root"
)

// key is a secret key on a token.
type key struct {
	handle p11.ObjectHandle
	id     []byte
	label  string
}

func (k key) String() string { return fmt.Sprintf("id=%s object=%q", encodeID(k.id), k.label) }

// keys returns the secret keys with this id and label, where they are given; not
// more than an error lists, and one.
func (t *token) keys(session p11.SessionHandle, id []byte, label string) ([]key, error) {
	template := []*p11.Attribute{p11.NewAttribute(p11.CKA_CLASS, p11.CKO_SECRET_KEY)}
	if len(id) > 0 {
		template = append(template, p11.NewAttribute(p11.CKA_ID, id))
	}
	if label != "" {
		template = append(template, p11.NewAttribute(p11.CKA_LABEL, label))
	}
	if err := t.FindObjectsInit(session, template); err != nil {
		return nil, fmt.Errorf("looking for the key: C_FindObjectsInit: %w", err)
	}
	handles, _, err := t.FindObjects(session, maxListed+1)
	final := t.FindObjectsFinal(session)
	if err != nil {
		return nil, fmt.Errorf("looking for the key: C_FindObjects: %w", err)
	}
	if final != nil {
		return nil, fmt.Errorf("looking for the key: C_FindObjectsFinal: %w", final)
	}
	var found []key
	for _, handle := range handles {
		k, err := t.describe(session, handle)
		if err != nil {
			return nil, err
		}
		found = append(found, k)
	}
	return found, nil
}

func (t *token) describe(session p11.SessionHandle, handle p11.ObjectHandle) (key, error) {
	id, err := t.attribute(session, handle, p11.CKA_ID)
	if err != nil {
		return key{}, err
	}
	label, err := t.attribute(session, handle, p11.CKA_LABEL)
	if err != nil {
		return key{}, err
	}
	if len(id) > maxID || len(label) > maxText {
		return key{}, fmt.Errorf("%w: a key on %s has an id of %d bytes and a label of %d: that is too long", root.ErrRefused, t, len(id), len(label))
	}
	return key{handle, id, string(label)}, nil
}

// attribute returns nil for one that the object has not.
func (t *token) attribute(session p11.SessionHandle, handle p11.ObjectHandle, kind uint) ([]byte, error) {
	got, err := t.GetAttributeValue(session, handle, []*p11.Attribute{p11.NewAttribute(kind, nil)})
	switch {
	case isCode(err, p11.CKR_ATTRIBUTE_TYPE_INVALID):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading attribute %#x of a key: C_GetAttributeValue: %w", kind, err)
	case len(got) != 1:
		return nil, fmt.Errorf("reading attribute %#x of a key: the module answers with %d", kind, len(got))
	}
	return got[0].Value, nil
}

// theKey returns the one key that the address identifies and that its id alone
// identifies too, since that is the root's name.
func (t *token) theKey(session p11.SessionHandle, a *address) (key, error) {
	found, err := t.keys(session, a.id, a.object)
	if err != nil {
		return key{}, err
	}
	if len(found) == 0 {
		return key{}, fmt.Errorf("%w: no secret key on %s is what the URI says: make one with `keywright root init`", root.ErrRefused, t)
	}
	if len(found) > 1 {
		return key{}, fmt.Errorf("%w: several keys on %s are what the URI says, %s: tell which one by id", root.ErrRefused, t, list(found))
	}
	k := found[0]
	if len(k.id) == 0 {
		return key{}, fmt.Errorf("%w: the key on %s with %s has no CKA_ID to be named by: give it one, for example by pkcs11-tool --set-id", root.ErrRefused, t, k)
	}
	if found, err = t.keys(session, k.id, ""); err != nil {
		return key{}, err
	}
	if len(found) > 1 {
		return key{}, fmt.Errorf("%w: several keys on %s have one id, %s: give them different ones", root.ErrRefused, t, list(found))
	}
	return k, t.check(session, k)
}

// check holds a key against what a root's key must be.
func (t *token) check(session p11.SessionHandle, k key) error {
	var wrong []error
	for _, rule := range []struct {
		kind  uint
		want  []byte
		fault string
	}{
		{p11.CKA_KEY_TYPE, ulong(p11.CKK_AES), "it is no AES key"},
		{p11.CKA_VALUE_LEN, ulong(root.KeySize), "its size is not 256 bits"},
		{p11.CKA_TOKEN, yes(), "it goes with its session: CKA_TOKEN is not set"},
		{p11.CKA_SENSITIVE, yes(), "its value can be read: CKA_SENSITIVE is not set"},
		{p11.CKA_ALWAYS_SENSITIVE, yes(), "its value was readable or came from outside: CKA_ALWAYS_SENSITIVE is not set"},
		{p11.CKA_EXTRACTABLE, no(), "it can leave the token: CKA_EXTRACTABLE is set"},
		{p11.CKA_NEVER_EXTRACTABLE, yes(), "it could leave the token once, or came from outside: CKA_NEVER_EXTRACTABLE is not set"},
		{p11.CKA_ENCRYPT, yes(), "it may not encrypt: CKA_ENCRYPT is not set"},
		{p11.CKA_DECRYPT, yes(), "it may not decrypt: CKA_DECRYPT is not set"},
	} {
		have, err := t.attribute(session, k.handle, rule.kind)
		if err != nil {
			return err
		}
		if !bytes.Equal(have, rule.want) {
			wrong = append(wrong, errors.New(rule.fault))
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%w: the key on %s with %s is none for a root: %w", root.ErrRefused, t, k, sentence(wrong))
	}
	return nil
}

func sentence(all []error) error {
	err := all[0]
	for _, next := range all[1:] {
		err = fmt.Errorf("%w; %w", err, next)
	}
	return err
}

// Values of attributes, as modules store them.
func yes() []byte         { return p11.NewAttribute(0, true).Value }
func no() []byte          { return p11.NewAttribute(0, false).Value }
func ulong(n uint) []byte { return p11.NewAttribute(0, n).Value }
