package api

import (
	"context"
	"time"
)

// Order is a rekey or a reencryption that a machine is to carry out.
type Order struct {
	Volume  string `json:"volume"`  // id
	Machine string `json:"machine"` // id
	Kind    string `json:"kind"`    // rekey or reencrypt
	// Status is open until the machine reports the keyslot of the new version, then
	// committed until the one of the version before is gone. A reencryption goes on:
	// it is rekeyed until every keyslot is there that stays, ready until the header is
	// under reencryption, then reencrypting.
	Status string `json:"status"`
	// AtBoot has only a boot carry it out.
	AtBoot bool `json:"at_boot,omitempty"`
	// From is the version that opens the disk until then, where that is not the current
	// one: the disk was restored from before a rekey.
	From uint32 `json:"from,omitempty"`
	// Version is that of the new secret; 0 before it was handed out.
	Version uint32 `json:"version,omitempty"`
	// Withdrawn is a version that was handed out and taken back: what the machine made of
	// it is to be removed.
	Withdrawn uint32    `json:"withdrawn,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	Created   time.Time `json:"created"`
	By        string    `json:"by"`
	// Deliveries counts how often the secret was handed out since the last step.
	Deliveries int        `json:"deliveries,omitempty"`
	Delivered  *time.Time `json:"delivered,omitempty"`
	// Fault is what the machine said last of why it failed.
	Fault    string     `json:"fault,omitempty"`
	Faults   int        `json:"faults,omitempty"`
	Reported *time.Time `json:"reported,omitempty"`
	// HeaderKept is when the machine sent the copy of its header from before the rekey.
	HeaderKept *time.Time `json:"header_kept,omitempty"`
	// Lost are the keyslots that a reencryption takes away since nobody has their keys;
	// Waits tells that it waits, or will, until somebody agrees to that.
	Lost  []LUKSSlot `json:"lost,omitempty"`
	Waits bool       `json:"waits,omitempty"`
	// Progress is how far a reencryption has come; absent before the machine said so.
	Progress *ReencryptionProgress `json:"progress,omitempty"`
}

// ReencryptionProgress is how far a reencryption has come.
type ReencryptionProgress struct {
	Done  uint64    `json:"done"`  // bytes
	Total uint64    `json:"total"` // bytes
	Rate  uint64    `json:"rate"`  // bytes a second
	Left  int64     `json:"left"`  // seconds, an estimate
	At    time.Time `json:"at"`
}

// ReencryptVolume is the body that orders a reencryption.
type ReencryptVolume struct {
	Reason string `json:"reason" minLength:"1" maxLength:"500"`
}

// LoseKeyslots is the body that agrees to the loss of the keyslots that a reencryption
// names.
type LoseKeyslots struct {
	Reason string `json:"reason" minLength:"1" maxLength:"500"`
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

// ReencryptVolume has a volume's machine put its data under a new volume key.
func (o *OperatorClient) ReencryptVolume(ctx context.Context, ref string, r ReencryptVolume) (Order, error) {
	return post[Order](ctx, o.c, at(PathVolumeReencrypt, ref), r)
}

// LoseKeyslots agrees to the loss of keyslots.
func (o *OperatorClient) LoseKeyslots(ctx context.Context, ref string, r LoseKeyslots) (Order, error) {
	return post[Order](ctx, o.c, at(PathVolumeLose, ref), r)
}

// WithdrawRekey takes back an order that was not committed.
func (o *OperatorClient) WithdrawRekey(ctx context.Context, ref string, r WithdrawRekey) (Order, error) {
	return post[Order](ctx, o.c, at(PathVolumeWithdraw, ref), r)
}

// Orders lists the rekeys and reencryptions that are under way, ordered by volume.
func (o *OperatorClient) Orders(ctx context.Context, q ListQuery) (Page[Order], error) {
	return get[Page[Order]](ctx, o.c, PathOrders, q.values())
}
