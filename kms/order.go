package kms

import (
	"bytes"
	"slices"
	"time"

	"keywright.dev/kms/exchange"
)

// OrderKind is what an order has a machine do.
type OrderKind string

// The kinds.
const (
	// KindRekey has it make a new secret and keyslot in the place of the current ones.
	KindRekey OrderKind = "rekey"
	// KindReencrypt has it do that first, and then put the volume's data under a new
	// volume key, with a new recovery key where the volume has one.
	KindReencrypt OrderKind = "reencrypt"
)

// OrderStatus is how far an order has come.
type OrderStatus string

// The states. A rekey whose keyslot of the version before is gone, and a
// reencryption that has ended, are deleted.
const (
	// OrderOpen waits for the machine to report the keyslot of the new version.
	OrderOpen OrderStatus = "open"
	// OrderCommitted waits for it to report that the one of the version before is
	// gone. The new version is current.
	OrderCommitted OrderStatus = "committed"
	// OrderRekeyed waits, of a reencryption, for it to report that every keyslot is
	// there that stays; where others would be lost, for an operator's yes before that.
	OrderRekeyed OrderStatus = "rekeyed"
	// OrderReady waits for it to report that the header is under reencryption.
	OrderReady OrderStatus = "ready"
	// OrderReencrypting waits for it to report that all data is under the new volume
	// key.
	OrderReencrypting OrderStatus = "reencrypting"
)

// Order is a rekey, or a reencryption, of one volume that its machine is to carry
// out.
type Order struct {
	Volume  string // id; a volume has at most one order
	Machine string
	Kind    OrderKind
	Status  OrderStatus
	// AtBoot has only a boot's release carry it out: whoever had the running system
	// would have the new secret too.
	AtBoot bool
	// From is the version that opens the disk until the order is committed, where
	// that is not the current one: the disk was restored from before a rekey.
	From uint32
	// Version is that of the secret it makes; 0 before it was delivered.
	Version uint32
	// Withdrawn is a version that was handed out and taken back: what the machine made
	// of it is to be removed. 0 where there is none.
	Withdrawn uint32
	Reason    string
	Created   time.Time
	By        string // who ordered it
	// Deliveries counts how often the secrets were handed out since the last step,
	// last at Delivered.
	Deliveries int
	Delivered  time.Time
	// Fault is what the machine said last of why it failed, at Reported; empty after
	// it went on.
	Fault    string
	Faults   int
	Reported time.Time
	// HeaderKept is when the machine last sent the copy of its header from before
	// the rekey; zero until then.
	HeaderKept time.Time

	// Lost are the keyslots that a reencryption takes away since nobody has their
	// keys, such as a person's; Agreed tells that an operator agreed to that of these.
	Lost   []Keyslot
	Agreed bool
	// Becomes is the identity digest that the header will have; empty before a
	// reencryption has begun.
	Becomes  []byte
	Progress Progress
}

// Keyslot is one of a LUKS2 header.
type Keyslot = exchange.LUKSSlot

// Progress is how far a reencryption has come, as the machine said last.
type Progress struct {
	Done, Total uint64 // bytes
	Rate        uint64 // bytes a second
	Left        time.Duration
	At          time.Time // zero before it said anything
}

// opens returns the secret that opens the disk now; nil where it is gone.
func (o *Order) opens(secrets []Secret) *Secret {
	if o.Status != OrderOpen || o.From == 0 {
		return findSecret(secrets, o.Volume, PurposeKeyslot, SecretCurrent)
	}
	return newestOfVersions(secrets, o.Volume, []uint32{o.From})
}

// mayNeed tells whether a version that was replaced may open the disk, or the copy of its
// header, until the order is over: what a restored disk opens with, and after the commit
// what the current one has just taken the place of. nil needs none.
func (o *Order) mayNeed(version uint32, secrets []Secret) bool {
	if o == nil {
		return false
	}
	before := uint32(0)
	for i := range secrets {
		if s := &secrets[i]; s.Volume == o.Volume && s.Purpose == PurposeKeyslot && s.Status == SecretRestoreOnly {
			before = max(before, s.Version)
		}
	}
	return version == o.From || o.Status == OrderCommitted && version == before
}

// IsWithdrawn tells whether the order was taken back, and waits for the machine to
// remove what it made of it: the current secret is then the version to settle on.
func (o *Order) IsWithdrawn() bool {
	return o.Status == OrderCommitted && o.Withdrawn != 0
}

// isRekeyed tells whether the rekey is over that a reencryption begins with.
func (o *Order) isRekeyed() bool {
	return o.Kind == KindReencrypt && o.Status != OrderOpen && o.Status != OrderCommitted
}

// mayBeUnder tells whether the header may be under reencryption.
func (o *Order) mayBeUnder() bool { return o.Status == OrderReady || o.Status == OrderReencrypting }

// Waits tells that the machine is to do nothing before an operator agrees to the
// loss of keyslots.
func (o *Order) Waits() bool {
	return o.Status == OrderRekeyed && len(o.Lost) > 0 && !o.Agreed
}

// weigh takes over which keyslots would be lost. What was agreed to stays so; more
// is to be asked for.
func (o *Order) weigh(report *exchange.VolumeReport) {
	lost := lostOf(report)
	more := slices.ContainsFunc(lost, func(s exchange.LUKSSlot) bool { return !slices.Contains(o.Lost, s) })
	o.Lost, o.Agreed = lost, o.Agreed && !more
}

// Loses returns the keyslots that a reencryption would take away since nobody has their
// keys, such as a person's, by what the machine reported last.
func (v *Volume) Loses() ([]Keyslot, error) {
	report, err := ParseInventory(v.Inventory)
	if err != nil {
		return nil, err
	}
	return lostOf(report), nil
}

// reweigh weighs again what is not lost yet. Where more would be by now it waits, and may
// be taken back: the disk is as after the rekey, with a recovery key more.
func (o *Order) reweigh(report *exchange.VolumeReport) {
	if o.Status != OrderRekeyed && (o.Status != OrderReady || len(report.Becomes) > 0) {
		return
	}
	o.weigh(report)
	if o.Status == OrderReady && len(o.Lost) > 0 && !o.Agreed {
		o.Status, o.Deliveries, o.Delivered = OrderRekeyed, 0, time.Time{}
	}
}

// lostOf returns the keyslots of a header that no token of the service names.
func lostOf(report *exchange.VolumeReport) (lost []exchange.LUKSSlot) {
	if report == nil {
		return nil
	}
	for _, s := range report.Slots {
		own := func(t exchange.LUKSToken) bool {
			return t.Volume == report.ID && (slices.Contains(t.Slots, s.ID) || slices.Contains(t.Announced, s.ID))
		}
		if !slices.ContainsFunc(report.Tokens, own) {
			lost = append(lost, s)
		}
	}
	return lost
}

// judgeIdentity holds the header of a volume that is asked about against the one
// that was enrolled. Under a reencryption that the service ordered it may be
// another: the one in between, and the one that it ends with.
func judgeIdentity(v *Volume, order *Order, asked exchange.Volume, becomes []byte) *Refusal {
	ordered := order != nil && order.isRekeyed() && order.mayBeUnder()
	switch {
	case len(becomes) > 0 && !ordered:
		return refuse(ReasonOrder, "the LUKS header of volume/%s is under a reencryption that was not ordered", v.ID)
	case len(becomes) > 0 && isUnder(v, order, asked, becomes):
		return nil
	case len(becomes) == 0 && bytes.Equal(v.Identity, asked.Identity[:]):
		return nil
	case len(becomes) == 0 && ordered && bytes.Equal(order.Becomes, asked.Identity[:]):
		return nil
	default:
		return refuse(ReasonVolume, "the LUKS header of volume/%s is not the one that was enrolled", v.ID)
	}
}

// isUnder tells whether a header under reencryption was made of the volume's, by the
// reencryption that was told of first.
func isUnder(v *Volume, order *Order, asked exchange.Volume, becomes []byte) bool {
	const size = len(asked.Identity)
	if len(becomes) != size || len(v.Identity) != size || bytes.Equal(becomes, v.Identity) || len(order.Becomes) > 0 && !bytes.Equal(order.Becomes, becomes) {
		return false
	}
	return asked.Identity == exchange.UnderReencryption([size]byte(v.Identity), [size]byte(becomes))
}

func becomesOf(reports []exchange.VolumeReport, volume string) []byte {
	for i := range reports {
		if reports[i].ID == volume {
			return reports[i].Becomes
		}
	}
	return nil
}
