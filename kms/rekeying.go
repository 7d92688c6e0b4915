package kms

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"keywright.dev/kms/audit"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/policy"
)

// ActionDeliverRekey is that of the entry about a secret that a running machine
// received.
const ActionDeliverRekey = "rekey.deliver"

// maxDeliveries bounds how often a running machine is given the secrets of one
// order; a boot gets them all the same.
const maxDeliveries = 8

// DeliverRekey gives a running machine the current secret of a volume and the one
// that an order makes, once the rekey is committed the current one alone. It is
// bounded to what the service ordered, to one volume that the release of this very
// boot was for, and to a few times.
func (s *Service) DeliverRekey(ctx context.Context, a Attested) (Sealed, error) {
	v, redemption, err := s.verifyKnown(ctx, exchange.PurposeRekey, &a)
	if err != nil {
		return Sealed{}, s.unproven(err, a.Source)
	}
	r := &rekeying{running: running{verified: v, service: s, attested: a, redemption: redemption}}
	if r.release.ID, err = s.random32(); err != nil {
		return Sealed{}, err
	}
	if v.refusal == nil {
		details, err := exchange.ParseDetails[exchange.RekeyDetails](v.statement.Details)
		if err != nil {
			v.refusal = refuse(ReasonMalformed, "the details of the statement cannot be parsed")
		}
		r.becomes = details.Becomes
	}
	defer func() { r.release.Wipe() }()
	if err := s.transact(ctx, r.key(), r.decide); err != nil {
		return Sealed{}, err
	}
	return s.seal(v, &r.release)
}

// running is a request of a running machine about one volume.
type running struct {
	*verified
	service    *Service
	attested   Attested
	redemption Redemption
	// becomes is as in [exchange.VolumeReport].
	becomes []byte
}

// key loads recovery keys as well, which a reencryption replaces.
func (r *running) key() Key {
	key := r.verified.key(&r.attested, &r.redemption)
	key.Recovery = true
	return key
}

// judge wants a system that had the keys of this volume from here in this very
// boot, which is still approved, and an order.
func (r *running) judge(state *State, d *draft) (*Volume, *Order, *Refusal) {
	if refusal := r.judgeReleased(state, d); refusal != nil {
		return nil, nil, refusal
	}
	if len(r.statement.Volumes) != 1 {
		return nil, nil, refuse(ReasonVolume, "the statement names %d volumes, want one", len(r.statement.Volumes))
	}
	if refusal := judgeVolumes(r.statement.Volumes, func(string) []byte { return r.becomes }, state, d); refusal != nil {
		return nil, nil, refusal
	}
	v := findVolume(state.Volumes, r.statement.Volumes[0].ID)
	d.object = volumeObject(v.ID)
	if !slices.Contains(state.Machine.Opened, v.ID) {
		return nil, nil, refuse(ReasonVolume, "the release of this boot was not for volume/%s", v.ID)
	}
	order := findOrder(state.Orders, v.ID)
	if order == nil {
		return nil, nil, refuse(ReasonOrder, "neither a rekey nor a reencryption of volume/%s is ordered", v.ID)
	}
	ask := func(p Policy, m policy.Machine, b policy.Boot) policy.Decision {
		return p.Release(m, policy.Volume{ID: v.ID, Machine: m}, b)
	}
	return v, order, judgeRunning(state, r.runningBoot(&r.attested, state, r.service.Clock()), ask, r.service.Policy(), d)
}

// begin is what every decision begins with: whether the machine's row is still
// that of who signed, and the challenge fresh.
func (r *running) begin(state *State, d draft) (Outcome, *Refusal, error) {
	if state.Machine == nil || !bytes.Equal(state.Machine.AK, r.ak.Public) {
		return Outcome{}, nil, fmt.Errorf("deciding about a rekey: the machine changed meanwhile: %w", ErrUnavailable)
	}
	if state.Redeemed {
		return r.service.refused(Outcome{}, d, refuseReplay())
	}
	return Outcome{Redeem: &r.redemption}, nil, nil
}

// rekeying is one delivery under way.
type rekeying struct {
	running
	release exchange.Release
}

func (r *rekeying) decide(state State) (Outcome, *Refusal, error) {
	r.release.Wipe()
	r.release.Secrets = nil
	d := machineDraft(ActionDeliverRekey, &r.attested)
	out, refusal, err := r.begin(&state, d)
	if refusal != nil || err != nil {
		return out, refusal, err
	}
	v, order, refusal := r.judge(&state, &d)
	if refusal == nil {
		refusal = judgeDelivery(order)
	}
	if refusal == nil {
		refusal, err = r.deliver(&out, &state, v, order)
	}
	switch {
	case err != nil:
		return Outcome{}, nil, err
	case refusal != nil:
		return r.service.refused(Outcome{Redeem: &r.redemption}, d, refusal)
	}
	d.release = hexDigest(r.release.ID)
	d.fact("version", fmt.Sprint(r.release.Secrets[0].Version), fmt.Sprint(r.release.Secrets[0].NextVersion))
	out, err = r.service.entered(out, d, audit.Allowed, nil)
	if err == nil {
		r.release.Entry = out.Entries[0].Signed.Marshal()
	}
	return out, nil, err
}

func judgeDelivery(order *Order) *Refusal {
	switch {
	case order.Waits():
		return refuse(ReasonOrder, "the reencryption of volume/%s waits until somebody agrees to the loss of keyslots", order.Volume)
	case order.AtBoot:
		return refuse(ReasonOrder, "the rekey of volume/%s is for a boot alone", order.Volume)
	case order.Deliveries >= maxDeliveries:
		return refuse(ReasonHandedOut, "the secrets of this rekey were given out %d times: the next boot goes on with it", order.Deliveries)
	default:
		return nil
	}
}

func (r *rekeying) deliver(out *Outcome, state *State, v *Volume, order *Order) (*Refusal, error) {
	row := order.opens(state.Secrets)
	if row == nil {
		return refuse(ReasonVolume, "volume/%s has no secret that opens its disk", v.ID), nil
	}
	key, err := r.service.Keys.Unwrap(secretContext(r.binding, v.Machine, row, PurposeKeyslot), row.Wrapped)
	if err != nil && !ofTheRow(err) {
		return nil, err
	}
	if err != nil {
		return refuse(ReasonVolume, "the secret of volume/%s does not open for the keys that signed this quote", v.ID), nil
	}
	r.release.Secrets = []exchange.ReleasedSecret{{
		Volume: v.ID, UUID: v.UUID, Version: row.Version, Identity: r.statement.Volumes[0].Identity, Key: key,
	}}
	out.handedToRunning(row)
	m := *state.Machine
	m.Counters = r.boot.Counters
	out.Machine = &m
	released := &r.release.Secrets[0]
	now := r.service.Clock()
	if order.isRekeyed() {
		return nil, r.deliverReencryption(out, state, v, order, released)
	}
	if order.Status == OrderCommitted {
		again := *order
		again.Deliveries, again.Delivered = order.Deliveries+1, now
		out.Orders = []Order{again}
		return nil, nil
	}
	return nil, r.service.deliverOrdered(released, out, state, v, *order, r.binding, false)
}
