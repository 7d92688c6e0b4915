package kms

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
)

// Identities are the service identity keys that guests pin: the current one and,
// until it is retired, the one before. The service answers with the one that a
// statement names. It is safe for concurrent use.
type Identities struct {
	mu   sync.RWMutex
	held []identity // the current one first
}

// identity is one key with what guests know of it.
type identity struct {
	signer      crypto.Signer
	spki        []byte
	fingerprint [32]byte
}

// NewIdentities holds keys (ECDSA P-256), the current one first.
func NewIdentities(signers ...crypto.Signer) (*Identities, error) {
	i := &Identities{}
	return i, i.hold(signers)
}

func (i *Identities) hold(signers []crypto.Signer) error {
	var held []identity
	for _, s := range signers {
		spki, err := x509.MarshalPKIXPublicKey(s.Public())
		if err != nil {
			return fmt.Errorf("reading the service identity key: %w", err)
		}
		held = append(held, identity{s, spki, exchange.Fingerprint(spki)})
	}
	if len(held) == 0 {
		return errors.New("reading the service identity key: there is none")
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.held = held
	return nil
}

func (i *Identities) all() []identity {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return i.held // replaced as a whole
}

func (i *Identities) find(fingerprint [32]byte) *identity {
	held := i.all()
	n := slices.IndexFunc(held, func(h identity) bool { return h.fingerprint == fingerprint })
	if n < 0 {
		return nil
	}
	return &held[n]
}

// Fingerprints returns what guests are to pin, the current one first.
func (i *Identities) Fingerprints() [][32]byte {
	var list [][32]byte
	for _, h := range i.all() {
		list = append(list, h.fingerprint)
	}
	return list
}

// IdentityMaker makes and opens service identity keys; package pki does.
type IdentityMaker struct {
	Make NewServiceKey
	Open func(private secret.Bytes) (crypto.Signer, error)
}

// OpenIdentities loads the service identity keys, or makes the first one.
func OpenIdentities(ctx context.Context, keys *Keys, maker IdentityMaker) (*Identities, error) {
	_, private, err := keys.ServiceKey(ctx, ServiceKeyIdentity, maker.Make)
	if err != nil {
		return nil, err
	}
	private.Wipe()
	i := &Identities{}
	return i, i.load(ctx, keys, maker)
}

// load takes over what the store holds.
func (i *Identities) load(ctx context.Context, keys *Keys, maker IdentityMaker) error {
	rows, err := keys.serviceKeys(ctx, ServiceKeyIdentity)
	if err != nil {
		return err
	}
	var signers []crypto.Signer
	for _, row := range rows {
		signer, err := keys.openIdentity(ctx, row, maker)
		if err != nil {
			return err
		}
		signers = append(signers, signer)
	}
	return i.hold(signers)
}

func (k *Keys) openIdentity(ctx context.Context, row ServiceKey, maker IdentityMaker) (crypto.Signer, error) {
	private, err := k.openServiceKey(ctx, row)
	if err != nil {
		return nil, err
	}
	defer private.Wipe()
	return maker.Open(private)
}

// pinsOf returns what a guest pins: what it said, which the one that it named is
// among. err is of reading that.
func pinsOf(statement *exchange.Statement, said [][]byte, err error) ([][32]byte, error) {
	if err != nil {
		return nil, err
	}
	if len(said) == 0 {
		return [][32]byte{statement.ServiceKey}, nil
	}
	pins, err := exchange.Fingerprints(said)
	if err == nil && !slices.Contains(pins, statement.ServiceKey) {
		err = exchange.ErrMalformed
	}
	return pins, err
}

// ServiceKeyList is what guests are to pin, for who asked with a nonce, signed by
// the key that the guest knows.
type ServiceKeyList struct {
	Keys                  [][32]byte // the current one first
	Signature, ServiceKey []byte
}

// ServiceKeyList tells a guest which keys to pin. Anybody may ask: it says
// fingerprints, which every guest's initramfs holds in the clear.
func (s *Service) ServiceKeyList(pin, nonce []byte, source netip.Addr) (ServiceKeyList, error) {
	var by *identity
	if len(pin) == sha256.Size {
		by = s.Identities.find([32]byte(pin))
	}
	switch {
	case by == nil:
		return ServiceKeyList{}, s.unproven(refuse(ReasonServiceKey, "the guest pins another service key"), source)
	case len(nonce) != sha256.Size:
		return ServiceKeyList{}, s.unproven(refuse(ReasonMalformed, "the nonce has not 32 bytes"), source)
	}
	list := ServiceKeyList{Keys: s.Identities.Fingerprints(), ServiceKey: by.spki}
	var err error
	list.Signature, err = exchange.SignServiceKeys(by.signer, [32]byte(nonce), list.Keys)
	return list, err
}
