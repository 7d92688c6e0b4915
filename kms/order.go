package kms

import "time"

// OrderStatus is how far a rekey has come.
type OrderStatus string

// The states. An order whose keyslot of the version before is gone is deleted.
const (
	// OrderOpen waits for the machine to report the keyslot of the new version.
	OrderOpen OrderStatus = "open"
	// OrderCommitted waits for it to report that the one of the version before is
	// gone. The new version is current.
	OrderCommitted OrderStatus = "committed"
)

// Order is a rekey that a machine is to carry out: a new secret, and keyslot, of
// one volume in the place of its current one.
type Order struct {
	Volume  string // id; a volume has at most one order
	Machine string
	Status  OrderStatus
	// AtBoot has only a boot's release carry it out: whoever had the running system
	// would have the new secret too.
	AtBoot bool
	// From is the version that opens the disk until the order is committed, where
	// that is not the current one: the disk was restored from before a rekey.
	From uint32
	// Version is that of the secret it makes; 0 before it was delivered.
	Version uint32
	Reason  string
	Created time.Time
	By      string // who ordered it
	// Deliveries counts how often the new secret was handed out, last at Delivered.
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
}

// opens returns the secret that opens the disk now; nil where it is gone.
func (o *Order) opens(secrets []Secret) *Secret {
	if o.Status == OrderCommitted || o.From == 0 {
		return findSecret(secrets, o.Volume, PurposeKeyslot, SecretCurrent)
	}
	return newestOfVersions(secrets, o.Volume, []uint32{o.From})
}
