package kms

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"keywright.dev/kms/audit"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
)

// The actions about copies of headers.
const (
	// ActionKeepHeader is a machine's.
	ActionKeepHeader = "rekey.keep_header"
	// ActionDiscloseHeader is an operator's.
	ActionDiscloseHeader = "volume.header_copy"
)

// HeaderCopy is the copy of a volume's header from before a rekey, as the machine
// sealed it under the secret of [PurposeHeader] of this version.
type HeaderCopy struct {
	Volume  string
	Version uint32 // of the secret that the rekey makes
	Created time.Time
	Sealed  []byte // exchange.SealHeaderCopy
}

// HeaderUpload is a copy as a machine sends it. That it opens with a key that the
// service sealed to the machine, for this order, proves where it is from.
type HeaderUpload struct {
	Machine, Volume string
	Version         uint32
	Sealed          []byte
	Source          netip.Addr
	Request         string
}

// KeepHeader keeps the copy of a header until its order is over: one each time that
// the order's secrets are handed out, so that nobody writes without end. A copy that is
// sent again is not written again.
func (s *Service) KeepHeader(ctx context.Context, u HeaderUpload) error {
	if err := s.checkHeader(ctx, &u); err != nil {
		return s.unproven(err, u.Source)
	}
	return s.transact(ctx, Key{Machine: u.Machine}, func(state State) (Outcome, *Refusal, error) {
		a := Attested{Machine: u.Machine, Request: u.Request}
		d := machineDraft(ActionKeepHeader, &a)
		d.object = volumeObject(u.Volume)
		d.fact("version", "", fmt.Sprint(u.Version))
		order, refusal := u.judge(state.Orders)
		switch {
		case refusal != nil:
			return s.refused(Outcome{}, d, refusal)
		case order.hasHeader():
			return Outcome{}, nil, nil
		}
		kept := *order
		kept.HeaderKept = s.Clock()
		out, err := s.entered(Outcome{
			Orders:     []Order{kept},
			HeaderCopy: &HeaderCopy{Volume: u.Volume, Version: u.Version, Created: kept.HeaderKept, Sealed: u.Sealed},
		}, d, audit.Done, nil)
		return out, nil, err
	})
}

// judge finds the order that a copy is for.
func (u *HeaderUpload) judge(orders []Order) (*Order, *Refusal) {
	order := findOrder(orders, u.Volume)
	if order == nil || order.Status != OrderOpen || order.Version == 0 || order.Version != u.Version {
		return nil, refuse(ReasonOrder, "no rekey that makes version %d of the secret of volume/%s is open", u.Version, u.Volume)
	}
	return order, nil
}

// hasHeader tells whether a copy of the header was kept since the secrets were handed
// out last.
func (o *Order) hasHeader() bool { return !o.HeaderKept.IsZero() && !o.HeaderKept.Before(o.Delivered) }

// checkHeader opens the copy, before the transaction in which boots wait for their
// turn.
func (s *Service) checkHeader(ctx context.Context, u *HeaderUpload) error {
	m, err := s.Store.Machine(ctx, u.Machine)
	switch {
	case errors.Is(err, ErrNotFound):
		return refuse(ReasonMachine, "no machine has this id")
	case err != nil:
		return fmt.Errorf("looking up a machine: %w", err)
	case m.Status != MachineActive:
		return judgeStatus(m.Status)
	}
	orders, err := s.Store.OrdersOf(ctx, m.ID)
	if err != nil {
		return fmt.Errorf("keeping a copy of a header: %w", err)
	}
	if _, refusal := u.judge(orders); refusal != nil {
		return refusal
	}
	secrets, err := s.Store.Secrets(ctx, u.Volume)
	if err != nil {
		return fmt.Errorf("keeping a copy of a header: %w", err)
	}
	return s.opensHeader(ctx, m, secrets, u)
}

func (s *Service) opensHeader(ctx context.Context, m *Machine, secrets []Secret, u *HeaderUpload) error {
	row := findVersionOf(secrets, u.Volume, PurposeHeader, u.Version)
	if row == nil {
		return refuse(ReasonOrder, "no copy of this header is wanted")
	}
	var key secret.Bytes
	err := s.Keys.opened(ctx, func() (err error) {
		key, err = s.openFor(m, row)
		return err
	})
	if err != nil {
		return fmt.Errorf("opening the key for the copy of the header of volume/%s: %w", u.Volume, err)
	}
	defer key.Wipe()
	header, err := exchange.OpenHeaderCopy(key, u.Volume, u.Version, u.Sealed)
	if err != nil {
		return refuse(ReasonMalformed, "the copy of the header was not sealed with the key of this rekey")
	}
	clear(header)
	return nil
}

// headerKey returns the key that the copy of a header is sealed under, with the new
// secret of an order, and drops those of orders before. The caller wipes it.
func (s *Service) headerKey(out *Outcome, state *State, v *Volume, version uint32, binding [32]byte) (secret.Bytes, error) {
	if row := findVersionOf(state.Secrets, v.ID, PurposeHeader, version); row != nil {
		return s.Keys.Unwrap(secretContext(binding, v.Machine, row, PurposeHeader), row.Wrapped)
	}
	key, err := secret.Random(s.Random, exchange.HeaderKeySize)
	if err != nil {
		return key, err
	}
	row := Secret{
		Volume: v.ID, Purpose: PurposeHeader, Version: version, Status: SecretCurrent, Keyring: v.Keyring, Created: s.Clock(),
	}
	row.Wrapped, row.KeyringVersion, err = s.Keys.Wrap(secretContext(binding, v.Machine, &row, PurposeHeader), key)
	if err != nil {
		key.Wipe()
		return secret.Bytes{}, err
	}
	out.DropSecrets = append(out.DropSecrets, headerKeysOf(state.Secrets, v.ID)...)
	out.Secrets = append(out.Secrets, row)
	return key, nil
}

// headerKeysOf names the keys of a volume's header copies, with which these go.
func headerKeysOf(secrets []Secret, volume string) (refs []SecretRef) {
	for i := range secrets {
		if secrets[i].Volume == volume && secrets[i].Purpose == PurposeHeader {
			refs = append(refs, secrets[i].Ref())
		}
	}
	return refs
}

// DiscloseHeader returns the copy of a volume's header, and the key that opens it
// sealed to the recipient key of whoever asked, and bound to what he called the
// volume. That it was disclosed is durable before.
func (s *Service) DiscloseHeader(ctx context.Context, by Operator, v *Volume, called string, recipient []byte) (*HeaderCopy, Sealed, error) {
	if by.DryRun {
		return nil, Sealed{}, usage("the copy of a header cannot be disclosed in a dry run")
	}
	to, statement, err := disclosureTo(called, 0, recipient)
	if err != nil {
		return nil, Sealed{}, err
	}
	kept, err := s.Store.HeaderCopy(ctx, v.ID)
	if errors.Is(err, ErrNotFound) {
		return nil, Sealed{}, disallow("no copy of the header of volume/%s is kept: there is one while a rekey is under way, once the machine has begun", v.ID)
	}
	if err != nil {
		return nil, Sealed{}, err
	}
	d := &disclosingHeader{service: s, by: by, copy: kept}
	if err := s.change(ctx, by, Key{Machine: v.Machine}, d.decide); err != nil {
		d.key.Wipe()
		return nil, Sealed{}, fmt.Errorf("disclosing the copy of the header of volume/%s: %w", v.ID, err)
	}
	defer d.key.Wipe()
	sealed, err := s.sealDisclosure(to, statement, d.key)
	return kept, sealed, err
}

// disclosingHeader is one disclosure under way.
type disclosingHeader struct {
	service *Service
	by      Operator
	copy    *HeaderCopy
	key     secret.Bytes
}

func (d *disclosingHeader) decide(state State) (Outcome, error) {
	d.key.Wipe()
	volume := findVolume(state.Volumes, d.copy.Volume)
	if state.Machine == nil || volume == nil {
		return Outcome{}, ErrNotFound
	}
	row := findVersionOf(state.Secrets, volume.ID, PurposeHeader, d.copy.Version)
	if row == nil {
		return Outcome{}, disallow("the rekey that the copy was kept for has just ended")
	}
	var err error
	if d.key, err = d.service.openFor(state.Machine, row); err != nil {
		return Outcome{}, err
	}
	entry := d.by.draft(ActionDiscloseHeader, volume.Machine, volumeObject(volume.ID))
	entry.fact("volume.uuid", "", volume.UUID)
	entry.fact("version", "", fmt.Sprint(d.copy.Version))
	return d.service.entered(Outcome{}, entry, audit.Done, nil)
}
