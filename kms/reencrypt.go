package kms

import (
	"context"
	"fmt"
	"time"

	"keywright.dev/kms/exchange"
)

// The actions of operators about reencryptions.
const (
	ActionReencrypt    = "volume.reencrypt"
	ActionLoseKeyslots = "volume.lose_keyslots"
)

// OrderReencrypt has the machine of a volume put its data under a new volume key,
// while it runs: a rekey comes first, so that nobody has what opens the new keyslots.
// Where keyslots would be lost, the order names them, and waits after the rekey until
// somebody agrees ([Service.LoseKeyslots]).
func (s *Service) OrderReencrypt(ctx context.Context, by Operator, volume *Volume, reason string) (*Order, error) {
	return s.changeOrder(ctx, by, ActionReencrypt, volume, func(state *State, v *Volume, d *draft, out *Outcome) (*Order, error) {
		d.fact("reason", "", reason)
		known := findOrder(state.Orders, v.ID)
		switch {
		case v.Status != VolumeActive:
			return nil, disallow("volume/%s is %s: only an active volume is reencrypted", v.ID, v.Status)
		case known != nil && known.IsWithdrawn():
		case known != nil && known.Waits():
			return nil, disallow("a reencryption of volume/%s is ordered already: it waits until somebody agrees to the loss of keyslots", v.ID)
		case known != nil:
			return nil, disallow("a %s of volume/%s is ordered already", known.Kind, v.ID)
		}
		loses, err := v.Loses()
		if err != nil {
			return nil, err
		}
		order := Order{
			Volume: v.ID, Machine: v.Machine, Kind: KindReencrypt, Status: OrderOpen, Reason: reason,
			Created: s.Clock(), By: by.changedBy(), Lost: loses,
		}
		if known != nil {
			order.Withdrawn = known.Withdrawn
		}
		d.lost(order.Lost)
		out.Orders = []Order{order}
		return &order, nil
	})
}

// LoseKeyslots agrees to the loss of the keyslots that an ordered reencryption
// names. What turns up beside them later is to be agreed to anew.
func (s *Service) LoseKeyslots(ctx context.Context, by Operator, volume *Volume, reason string) (*Order, error) {
	return s.changeOrder(ctx, by, ActionLoseKeyslots, volume, func(state *State, v *Volume, d *draft, out *Outcome) (*Order, error) {
		d.fact("reason", "", reason)
		known := findOrder(state.Orders, v.ID)
		switch {
		case known == nil || known.Kind != KindReencrypt:
			return nil, disallow("no reencryption of volume/%s is ordered", v.ID)
		case len(known.Lost) == 0:
			return nil, disallow("the reencryption of volume/%s loses no keyslot", v.ID)
		case known.Agreed:
			return nil, disallow("it was agreed already that the reencryption of volume/%s loses keyslots", v.ID)
		}
		d.lost(known.Lost)
		order := *known
		order.Agreed = true
		out.Orders = []Order{order}
		return &order, nil
	})
}

// lost names keyslots in an entry.
func (d *draft) lost(slots []exchange.LUKSSlot) {
	for _, i := range itemsOf(&exchange.VolumeReport{Slots: slots}) {
		d.fact("luks.lost", i.Text, "")
	}
}

// disallowWithdrawal says why an order of a reencryption cannot be taken back.
func disallowWithdrawal(o *Order) error {
	if o.Kind == KindRekey || o.Status == OrderRekeyed && o.Delivered.IsZero() {
		return nil
	}
	if o.Status == OrderRekeyed || o.mayBeUnder() {
		return disallow("the reencryption of volume/%s has begun on its disk, and is to end", o.Volume)
	}
	return nil
}

// endRekey ends the rekey of an order: a reencryption goes on.
func (o *Order) endRekey(out *Outcome, report *exchange.VolumeReport) exchange.RekeyStatus {
	if o.Kind == KindRekey {
		out.DropOrders = append(out.DropOrders, o.Volume)
		return exchange.RekeyFinished
	}
	next := *o
	next.Status, next.Deliveries, next.Fault, next.From = OrderRekeyed, 0, "", 0
	next.Delivered, next.HeaderKept = time.Time{}, time.Time{}
	next.weigh(report)
	out.Orders = append(out.Orders, next)
	return exchange.RekeyRekeyed
}

// newRecoverySecret makes the next recovery key of a volume. The caller wipes it
// after its release.
func (s *Service) newRecoverySecret(out *Outcome, v *Volume, version uint32, binding [32]byte) (exchange.ReleasedSecret, error) {
	row := Secret{
		Volume: v.ID, Purpose: PurposeRecovery, Version: version, Status: SecretPending, Keyring: v.Keyring, Created: s.Clock(),
	}
	key, err := newRecoveryKey(s, v, &row, binding)
	if err != nil {
		return exchange.ReleasedSecret{}, fmt.Errorf("making the next recovery key of volume/%s: %w", v.ID, err)
	}
	out.Secrets = append(out.Secrets, row)
	return exchange.ReleasedSecret{Recovery: key, RecoveryVersion: version}, nil
}
