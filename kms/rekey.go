package kms

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"keywright.dev/kms/audit"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
)

// The actions of operators about rekeys.
const (
	ActionRekey         = "volume.rekey"
	ActionWithdrawRekey = "volume.withdraw_rekey"
)

// OrderRekey has the machine of a volume make a keyslot for a new secret in the
// place of its current one. With atBoot only a boot carries it out: say so where
// the running system may be somebody else's. An open order becomes one at boot
// likewise, and whatever secret it handed out before is given up.
func (s *Service) OrderRekey(ctx context.Context, by Operator, volume *Volume, reason string, atBoot bool) (*Order, error) {
	return s.changeOrder(ctx, by, ActionRekey, volume, func(state *State, v *Volume, d *draft, out *Outcome) (*Order, error) {
		d.fact("reason", "", reason)
		d.fact("at_boot", "", strconv.FormatBool(atBoot))
		order := Order{
			Volume: v.ID, Machine: v.Machine, Kind: KindRekey, Status: OrderOpen, AtBoot: atBoot, Reason: reason,
			Created: s.Clock(), By: by.changedBy(),
		}
		switch known := findOrder(state.Orders, v.ID); {
		case v.Status != VolumeActive:
			return nil, disallow("volume/%s is %s: only an active volume is rekeyed", v.ID, v.Status)
		case known == nil:
		case known.IsWithdrawn():
			order.Withdrawn = known.Withdrawn
		case known.Kind == KindReencrypt:
			return nil, disallow("a reencryption of volume/%s is ordered already, which begins with a rekey", v.ID)
		case known.Status == OrderCommitted:
			return nil, disallow("a rekey of volume/%s is committed, and waits for the machine to remove the keyslot before", v.ID)
		case known.AtBoot || !atBoot:
			return nil, disallow("a rekey of volume/%s is ordered already", v.ID)
		default:
			order.From, order.Withdrawn = known.From, max(known.Version, known.Withdrawn)
			out.DropSecrets = madeFor(state.Secrets, v.ID)
		}
		out.Orders = []Order{order}
		return &order, nil
	})
}

// WithdrawRekey takes an order back that was not committed, or a reencryption that
// has not begun on the disk. Where it was handed out, the order stays until the machine
// has removed what it made of it.
func (s *Service) WithdrawRekey(ctx context.Context, by Operator, volume *Volume, reason string) (*Order, error) {
	return s.changeOrder(ctx, by, ActionWithdrawRekey, volume, func(state *State, v *Volume, d *draft, out *Outcome) (*Order, error) {
		d.fact("reason", "", reason)
		known := findOrder(state.Orders, v.ID)
		switch {
		case known == nil:
			return nil, disallow("no rekey of volume/%s is ordered", v.ID)
		case known.IsWithdrawn():
			return nil, disallow("the rekey of volume/%s was taken back, and waits for the machine to remove what it made of it", v.ID)
		case known.Status == OrderCommitted:
			return nil, disallow("the rekey of volume/%s is committed: its new secret is current", v.ID)
		case known.From != 0:
			return nil, disallow("the disk of volume/%s was restored from before a rekey, and opens with a secret that boots are released until it is rekeyed again", v.ID)
		}
		if err := disallowWithdrawal(known); err != nil {
			return nil, err
		}
		out.DropSecrets = madeFor(state.Secrets, v.ID)
		if current := findSecret(state.Secrets, v.ID, PurposeKeyslot, SecretCurrent); known.Status == OrderOpen && current != nil {
			if left := max(known.Version, known.Withdrawn); left > 0 {
				order := known.withdrawn(left, current)
				out.Orders = []Order{order}
				return &order, nil
			}
		}
		out.DropOrders = []string{v.ID}
		return known, nil
	})
}

// withdrawn returns what an order becomes that is taken back after a version was handed
// out: the current secret is what the machine settles on, as after a rekey.
func (o *Order) withdrawn(version uint32, current *Secret) Order {
	order := *o
	order.Kind, order.Status, order.Version, order.Withdrawn = KindRekey, OrderCommitted, current.Version, version
	order.Deliveries, order.Delivered, order.HeaderKept, order.Fault = 0, time.Time{}, time.Time{}, ""
	order.Lost, order.Agreed = nil, false
	return order
}

func (s *Service) changeOrder(ctx context.Context, by Operator, action string, volume *Volume,
	decide func(*State, *Volume, *draft, *Outcome) (*Order, error),
) (*Order, error) {
	var order *Order
	err := s.change(ctx, by, Key{Machine: volume.Machine}, func(state State) (Outcome, error) {
		v := findVolume(state.Volumes, volume.ID)
		if v == nil {
			return Outcome{}, ErrNotFound
		}
		d := by.draft(action, v.Machine, volumeObject(v.ID))
		var out Outcome
		var err error
		if order, err = decide(&state, v, &d, &out); err != nil {
			return Outcome{}, err
		}
		return s.entered(out, d, audit.Done, nil)
	})
	if err != nil {
		return nil, fmt.Errorf("%s volume/%s: %w", action, volume.ID, err)
	}
	if tell := s.ordered.Load(); tell != nil && !by.DryRun {
		(*tell)(volume.Machine)
	}
	return order, nil
}

// HasOrders tells whether a running machine has anything to rekey or reencrypt. Whoever knows a
// machine's id may ask: it says nothing else.
func (s *Service) HasOrders(ctx context.Context, machine string, source netip.Addr) (bool, error) {
	m, err := s.Store.Machine(ctx, machine)
	switch {
	case errors.Is(err, ErrNotFound):
		return false, s.unproven(refuse(ReasonMachine, "no machine has this id"), source)
	case err != nil:
		return false, fmt.Errorf("looking up a machine: %w", err)
	case m.Status != MachineActive:
		return false, s.unproven(judgeStatus(m.Status), source)
	}
	orders, err := s.Store.OrdersOf(ctx, machine)
	return slices.ContainsFunc(orders, func(o Order) bool { return !o.AtBoot && !o.Waits() }), err
}

func findOrder(orders []Order, volume string) *Order {
	i := slices.IndexFunc(orders, func(o Order) bool { return o.Volume == volume })
	if i < 0 {
		return nil
	}
	return &orders[i]
}

// madeFor names what an order of a volume made that was not committed.
func madeFor(secrets []Secret, volume string) []SecretRef {
	made := headerKeysOf(secrets, volume)
	for i := range secrets {
		if s := &secrets[i]; s.Volume == volume && s.Status == SecretPending {
			made = append(made, s.Ref())
		}
	}
	return made
}

// deliverOrdered adds the secret of an open order to what is released of its volume,
// and the key for the copy of the header. They are made when it is delivered first:
// fresh, and under the keyring version that is current then. With atBoot they are
// handed to a boot.
func (s *Service) deliverOrdered(released *exchange.ReleasedSecret, out *Outcome, state *State, v *Volume, order Order, binding [32]byte, atBoot bool) (err error) {
	if released.Next, err = s.orderedSecret(out, state, v, &order, binding, atBoot); err != nil {
		return fmt.Errorf("making the next secret of volume/%s: %w", v.ID, err)
	}
	released.NextVersion = order.Version
	if released.HeaderKey, err = s.headerKey(out, state, v, order.Version, binding); err != nil {
		return fmt.Errorf("making the key for a copy of the header of volume/%s: %w", v.ID, err)
	}
	order.Deliveries++
	order.Delivered = s.Clock()
	out.Orders = append(out.Orders, order)
	return nil
}

func (s *Service) orderedSecret(out *Outcome, state *State, v *Volume, order *Order, binding [32]byte, atBoot bool) (secret.Bytes, error) {
	if row := findSecret(state.Secrets, v.ID, PurposeKeyslot, SecretPending); row != nil && row.Version == order.Version {
		if !atBoot {
			out.handedToRunning(row)
		}
		return s.Keys.Unwrap(secretContext(binding, v.Machine, row, PurposeKeyslot), row.Wrapped)
	}
	key, err := newKeyslotSecret(s.Random)
	if err != nil {
		return key, err
	}
	row := Secret{
		Volume: v.ID, Purpose: PurposeKeyslot, Version: newestSecret(state.Secrets, v.ID, PurposeKeyslot) + 1,
		Status: SecretPending, Keyring: v.Keyring, Created: s.Clock(), AtBoot: atBoot,
	}
	row.Wrapped, row.KeyringVersion, err = s.Keys.Wrap(secretContext(binding, v.Machine, &row, PurposeKeyslot), key)
	if err != nil {
		key.Wipe()
		return secret.Bytes{}, err
	}
	order.Version = row.Version
	out.Secrets = append(out.Secrets, row)
	return key, nil
}

// handedToRunning notes that a running system was given a secret, which whoever
// is root there has as well.
func (o *Outcome) handedToRunning(row *Secret) {
	if row.AtBoot {
		noted := *row
		noted.AtBoot = false
		o.Secrets = append(o.Secrets, noted)
	}
}

func newestSecret(secrets []Secret, volume, purpose string) (version uint32) {
	for i := range secrets {
		if secrets[i].Volume == volume && secrets[i].Purpose == purpose {
			version = max(version, secrets[i].Version)
		}
	}
	return version
}
