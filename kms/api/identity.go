package api

import (
	"context"
	"time"

	"keywright.dev/kms/exchange"
)

// PathServiceKeys is of the guest listener: what to pin.
const PathServiceKeys = "/v1/service-keys"

// Paths of the operator listener about the service identity key.
const (
	PathIdentity       = "/v1/identity"
	PathIdentityRotate = "/v1/identity/rotate"
	PathIdentityRetire = "/v1/identity/retire"
)

// ServiceKeysRequest asks which service identity keys to pin.
type ServiceKeysRequest struct {
	// Pin is the fingerprint of the key that the guest will accept the answer from.
	Pin []byte `json:"pin"`
	// Nonce is 32 random bytes.
	Nonce []byte `json:"nonce"`
}

// ServiceKeysResponse names them, the current one first.
type ServiceKeysResponse struct {
	Keys [][]byte `json:"keys"` // fingerprints
	// Signature is that key's over nonce and keys; see exchange.VerifyServiceKeys.
	Signature  []byte `json:"signature"`
	ServiceKey []byte `json:"service_key"` // SubjectPublicKeyInfo
}

// ServiceKeys asks which service identity keys to pin. The answer is to be verified.
func (g *GuestClient) ServiceKeys(ctx context.Context, r ServiceKeysRequest) (ServiceKeysResponse, error) {
	return post[ServiceKeysResponse](ctx, g.c, PathServiceKeys, r)
}

// Verify returns the keys to pin, which the key of the request signed.
func (a *ServiceKeysResponse) Verify(pin, nonce [32]byte) ([][32]byte, error) {
	keys, err := exchange.Fingerprints(a.Keys)
	if err != nil {
		return nil, err
	}
	return keys, exchange.VerifyServiceKeys(pin, a.ServiceKey, nonce, keys, a.Signature)
}

// IdentityCensus tells which machines know which service identity keys, by their
// last boots. Revoked machines are not in it.
type IdentityCensus struct {
	Keys     []IdentityKey `json:"keys"` // the current one first
	Machines int64         `json:"machines"`
	// Lacking do not pin the current key: once the one before is retired, no boot of
	// theirs gets keys. First are ids of the first 20.
	Lacking int64    `json:"lacking"`
	First   []string `json:"first"`
	// Others pin the current key and another one: whoever has that one can still pass
	// for this service with them.
	Others int64 `json:"others"`
}

// IdentityKey is a service identity key that the service answers with.
type IdentityKey struct {
	Fingerprint string    `json:"fingerprint"`
	Created     time.Time `json:"created"`
	Pinned      int64     `json:"pinned"` // machines that pin it
}

// RetireIdentity is the body that retires the service identity key before the
// current one.
type RetireIdentity struct {
	Key string `json:"key" minLength:"1" maxLength:"80" doc:"Its fingerprint, or the beginning of it."`
	// LeaveBehind is how many machines may lack the current key.
	LeaveBehind int `json:"leave_behind,omitempty" minimum:"0" maximum:"10000" doc:"How many machines that lack the current key are left behind, at most."`
}

// IdentityCensus counts which machines know which service identity keys.
func (o *OperatorClient) IdentityCensus(ctx context.Context) (IdentityCensus, error) {
	return get[IdentityCensus](ctx, o.c, PathIdentity, nil)
}

// RotateIdentity makes another service identity key.
func (o *OperatorClient) RotateIdentity(ctx context.Context) (IdentityCensus, error) {
	return post[IdentityCensus](ctx, o.c, PathIdentityRotate, struct{}{})
}

// RetireIdentity deletes the one before the current one.
func (o *OperatorClient) RetireIdentity(ctx context.Context, r RetireIdentity) (IdentityCensus, error) {
	return post[IdentityCensus](ctx, o.c, PathIdentityRetire, r)
}
