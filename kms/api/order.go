package api

import (
	"context"
	"time"
)

// Order is a rekey that a machine is to carry out.
type Order struct {
	Volume  string `json:"volume"`  // id
	Machine string `json:"machine"` // id
	// Status is open until the machine reports the keyslot of the new version, then
	// committed until the one of the version before is gone.
	Status string `json:"status"`
	// AtBoot has only a boot carry it out.
	AtBoot bool `json:"at_boot,omitempty"`
	// From is the version that opens the disk until then, where that is not the current
	// one: the disk was restored from before a rekey.
	From uint32 `json:"from,omitempty"`
	// Version is that of the new secret; 0 before it was handed out.
	Version uint32    `json:"version,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Created time.Time `json:"created"`
	By      string    `json:"by"`
	// Deliveries counts how often the secret was handed out since the last step.
	Deliveries int        `json:"deliveries,omitempty"`
	Delivered  *time.Time `json:"delivered,omitempty"`
	// Fault is what the machine said last of why it failed.
	Fault    string     `json:"fault,omitempty"`
	Faults   int        `json:"faults,omitempty"`
	Reported *time.Time `json:"reported,omitempty"`
	// HeaderKept is when the machine sent the copy of its header from before the rekey.
	HeaderKept *time.Time `json:"header_kept,omitempty"`
}

// RekeyVolume is the body that orders a rekey.
type RekeyVolume struct {
	// AtBoot has only a boot carry it out: whoever had the running system would have
	// the new secret too.
	AtBoot bool   `json:"at_boot,omitempty"`
	Reason string `json:"reason" minLength:"1" maxLength:"500"`
}

// WithdrawRekey is the body that takes an order back.
type WithdrawRekey struct {
	Reason string `json:"reason,omitempty" maxLength:"500"`
}

// DestroySecret is the body that destroys a secret which a rekey replaced.
type DestroySecret struct {
	Version uint32 `json:"version" minimum:"1"`
	Reason  string `json:"reason" minLength:"1" maxLength:"500"`
}

// DestroySecret destroys a secret that a rekey replaced, and returns what it was.
func (o *OperatorClient) DestroySecret(ctx context.Context, ref string, d DestroySecret) (SecretVersion, error) {
	return post[SecretVersion](ctx, o.c, at(PathVolumeDestroy, ref), d)
}

// RekeyVolume has a volume's machine replace its secret.
func (o *OperatorClient) RekeyVolume(ctx context.Context, ref string, r RekeyVolume) (Order, error) {
	return post[Order](ctx, o.c, at(PathVolumeRekey, ref), r)
}

// WithdrawRekey takes back an order that was not committed.
func (o *OperatorClient) WithdrawRekey(ctx context.Context, ref string, r WithdrawRekey) (Order, error) {
	return post[Order](ctx, o.c, at(PathVolumeWithdraw, ref), r)
}

// Orders lists the rekeys that are under way, ordered by volume.
func (o *OperatorClient) Orders(ctx context.Context, q ListQuery) (Page[Order], error) {
	return get[Page[Order]](ctx, o.c, PathOrders, q.values())
}
