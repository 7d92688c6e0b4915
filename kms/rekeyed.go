package kms

import (
	"context"
	"fmt"
	"slices"
	"time"

	"keywright.dev/kms/audit"
	"keywright.dev/kms/exchange"
)

// ActionReportRekey is that of the entry about what became of a rekey.
const ActionReportRekey = "rekey.report"

// ReportRekey takes over what a machine says of an order: that the new keyslot is
// there and opens, whereupon its secret is the current one and the one before
// opens images of the disk alone; that the keyslot before is gone, which ends the
// order; or why it failed. A report may be repeated.
//
// The answer, an [exchange.RekeyAnswer], is signed and not sealed: it is no secret,
// but the machine removes a keyslot because of it.
func (s *Service) ReportRekey(ctx context.Context, a Attested) (Sealed, error) {
	v, redemption, err := s.verifyKnown(ctx, exchange.PurposeRekeyed, &a)
	if err != nil {
		return Sealed{}, s.unproven(err, a.Source)
	}
	r := &rekeyed{running: running{verified: v, service: s, attested: a, redemption: redemption}}
	if v.refusal == nil {
		v.refusal = r.readDetails()
	}
	if err := s.transact(ctx, r.key(), r.decide); err != nil {
		return Sealed{}, err
	}
	answer, err := exchange.MarshalRekeyAnswer(exchange.RekeyAnswer{Version: r.details.Version, Status: r.status})
	if err != nil {
		return Sealed{}, err
	}
	return s.sign(v.statement.ServiceKey, v.raw, answer)
}

// rekeyed is one report under way.
type rekeyed struct {
	running
	details exchange.RekeyedDetails
	status  exchange.RekeyStatus
}

func (r *rekeyed) readDetails() *Refusal {
	details, err := exchange.ParseDetails[exchange.RekeyedDetails](r.statement.Details)
	if err != nil || len(details.Fault) > exchange.MaxFault || !printable(details.Fault) || details.Done && details.Fault != "" {
		return refuse(ReasonMalformed, "the details of the statement cannot be parsed")
	}
	if !wellStaged(&details) {
		return refuse(ReasonMalformed, "the statement reports on a reencryption in another form than a guest does")
	}
	r.details, r.becomes = details, details.Volume.Becomes
	return nil
}

// wellStaged tells whether a report says one thing.
func wellStaged(d *exchange.RekeyedDetails) bool {
	switch d.Reencryption {
	case "":
		return d.Progress == nil
	case exchange.StageProgress:
		return d.Progress != nil && d.Progress.Valid() && !d.Done && d.Fault == ""
	case exchange.StageReady, exchange.StageBegun, exchange.StageDone:
		return d.Progress == nil && !d.Done && d.Fault == ""
	default:
		return false
	}
}

func (r *rekeyed) decide(state State) (Outcome, *Refusal, error) {
	d := machineDraft(ActionReportRekey, &r.attested)
	out, refusal, err := r.begin(&state, d)
	if refusal != nil || err != nil {
		return out, refusal, err
	}
	v, order, refusal := r.judge(&state, &d)
	if refusal == nil && r.details.Volume.ID != v.ID {
		refusal = refuse(ReasonVolume, "the statement reports on another volume than it names")
	}
	if refusal == nil && r.details.Version != order.Version {
		refusal = refuse(ReasonOrder, "the report is about version %d, and ordered is version %d", r.details.Version, order.Version)
	}
	result := audit.Done
	if refusal == nil {
		m := *state.Machine
		m.Counters = r.boot.Counters
		out.Machine = &m
		result, refusal = r.advance(&out, &state, *v, *order, &d)
	}
	if refusal != nil {
		return r.service.refused(Outcome{Redeem: &r.redemption}, d, refusal)
	}
	if r.details.Reencryption == exchange.StageProgress {
		return out, nil, nil // it stands with the order: the log would hold little else
	}
	out, err = r.service.entered(out, d, result, nil)
	return out, nil, err
}

// advance moves the order on.
func (r *rekeyed) advance(out *Outcome, state *State, v Volume, order Order, d *draft) (audit.Outcome, *Refusal) {
	d.fact("version", "", fmt.Sprint(order.Version))
	switch {
	case r.details.Fault != "":
		d.fact("fault", order.Fault, r.details.Fault)
		order.Fault, order.Reported = r.details.Fault, r.service.Clock()
		order.Faults++
		order.reweigh(&r.details.Volume)
		out.Orders = []Order{order}
		r.status = exchange.RekeyStatus(order.Status)
		return audit.Failed, nil
	case r.details.Reencryption != "":
		return r.advanceReencryption(out, state, v, order, d)
	case r.details.Done:
		return audit.Done, r.finish(out, state, &v, &order, d)
	case order.Status == OrderCommitted:
		r.status = exchange.RekeyCommitted
		return audit.Done, nil
	default:
		return audit.Done, r.commit(out, state, &v, &order, d)
	}
}

// commit makes the new secret the current one: from now on a boot is released it.
func (r *rekeyed) commit(out *Outcome, state *State, v *Volume, order *Order, d *draft) *Refusal {
	slots := ownSlots(&r.details.Volume, order.Version)
	if len(slots) != 1 {
		return refuse(ReasonVolume, "the report shows %d keyslots of version %d, want one", len(slots), order.Version)
	}
	next := findSecret(state.Secrets, v.ID, PurposeKeyslot, SecretPending)
	if next == nil || next.Version != order.Version {
		return refuse(ReasonOrder, "version %d of volume/%s is not pending", order.Version, v.ID)
	}
	if before := out.promote(state.Secrets, next, r.service.Clock()); before != nil {
		d.fact("restore_only", "", fmt.Sprint(before.Version))
	}
	if refusal := v.acceptOwn(&r.details.Volume, slots); refusal != nil {
		return refusal
	}
	out.Volumes = []Volume{*v}
	order.Status, order.Deliveries, order.Fault, order.Reported = OrderCommitted, 0, "", r.service.Clock()
	order.Withdrawn = 0 // the machine has made its keyslots anew
	out.Orders = []Order{*order}
	r.status = exchange.RekeyCommitted
	return nil
}

// promote makes a pending secret the current one, and the one before restore-only, which
// it returns; nil where there was none.
func (o *Outcome) promote(secrets []Secret, next *Secret, now time.Time) (before *Secret) {
	settled := *next
	settled.Status = SecretCurrent
	o.Secrets = append(o.Secrets, settled)
	if before = findSecret(secrets, next.Volume, next.Purpose, SecretCurrent); before != nil {
		replaced := *before
		replaced.Status, replaced.Replaced = SecretRestoreOnly, now
		o.Secrets = append(o.Secrets, replaced)
	}
	return before
}

// finish ends the order: of what opened the volume before nothing is accepted any
// more, and the copy of its header, which that opens, goes.
func (r *rekeyed) finish(out *Outcome, state *State, v *Volume, order *Order, d *draft) *Refusal {
	if order.Status != OrderCommitted {
		return refuse(ReasonOrder, "the rekey of volume/%s was not committed", v.ID)
	}
	slots, settled := order.settled(&r.details.Volume)
	if !settled {
		return refuse(ReasonVolume, "the report shows other tokens or keyslots of the service's than one of version %d", order.Version)
	}
	if refusal := v.acceptOwn(&r.details.Volume, slots); refusal != nil {
		return refusal
	}
	d.fact("finished", "", "true")
	out.Volumes = []Volume{*v}
	out.DropSecrets = append(out.DropSecrets, headerKeysOf(state.Secrets, v.ID)...)
	r.status = order.endRekey(out, &r.details.Volume)
	return nil
}

// finishReported ends committed orders of volumes whose header, as a boot reports
// it, has lost keyslot and token of the version before: the machine was cut off before it
// said so itself, and of an order for a boot alone nobody else asks.
func (r *releasing) finishReported(out *Outcome, state *State) {
	for i := range r.details.Volumes {
		report := &r.details.Volumes[i]
		order, known := findOrder(state.Orders, report.ID), findVolume(state.Volumes, report.ID)
		if order == nil || order.Status != OrderCommitted || known == nil || known.Status != VolumeActive {
			continue
		}
		slots, settled := order.settled(report)
		if !settled {
			continue
		}
		if findVolume(out.Volumes, known.ID) == nil {
			out.Volumes = append(out.Volumes, *known)
		}
		if refusal := findVolume(out.Volumes, known.ID).acceptOwn(report, slots); refusal == nil {
			order.endRekey(out, report)
			out.DropSecrets = append(out.DropSecrets, headerKeysOf(state.Secrets, known.ID)...)
		}
	}
}

// forBoots tells whether a token is the service's for boots of a volume.
func forBoots(t *exchange.LUKSToken, volume string) bool {
	return t.Volume == volume && t.Purpose == ""
}

// ownSlots returns the keyslots that tokens for boots name, of one version.
func ownSlots(report *exchange.VolumeReport, version uint32) (slots []int) {
	for i := range report.Tokens {
		if t := &report.Tokens[i]; forBoots(t, report.ID) && t.Version == version {
			slots = append(slots, t.Slots...)
		}
	}
	return slots
}

// settled tells whether a header has, of tokens for boots, the one of the order's
// version alone, and returns its keyslot.
func (o *Order) settled(report *exchange.VolumeReport) (slots []int, yes bool) {
	tokens := 0
	for i := range report.Tokens {
		if forBoots(&report.Tokens[i], report.ID) {
			tokens++
		}
	}
	slots = ownSlots(report, o.Version)
	return slots, tokens == 1 && len(slots) == 1
}

// acceptOwn takes over a report. Of what is new in it, only tokens of ours for
// boots and their keyslots are accepted; what is gone is accepted no more, so that
// it is foreign where it comes back.
func (v *Volume) acceptOwn(report *exchange.VolumeReport, slots []int) *Refusal {
	return v.takeOver(report, ownItems(report, slots))
}

// takeOver takes over a report. What is its own is accepted, and nothing else that is
// new.
func (v *Volume) takeOver(report *exchange.VolumeReport, own []Item) *Refusal {
	if refusal := v.describe(report); refusal != nil {
		return refusal
	}
	foreign := v.foreign(report)
	var accepted []byte
	for _, i := range itemsOf(report) {
		if !slices.Contains(foreign, i) || slices.Contains(own, i) {
			accepted = append(accepted, i.mark()...)
		}
	}
	v.Accepted = accepted
	v.Foreign = len(v.foreign(report)) > 0
	return nil
}

// ownItems returns keyslots, and the volume's own tokens for boots that name them.
func ownItems(report *exchange.VolumeReport, slots []int) []Item {
	own := exchange.VolumeReport{Slots: slotsAt(report, slots)}
	for _, t := range report.Tokens {
		if forBoots(&t, report.ID) && slices.Equal(t.Slots, slots) {
			own.Tokens = append(own.Tokens, t)
		}
	}
	return itemsOf(&own)
}

func slotsAt(report *exchange.VolumeReport, numbers []int) []exchange.LUKSSlot {
	return slices.DeleteFunc(slices.Clone(report.Slots), func(s exchange.LUKSSlot) bool { return !slices.Contains(numbers, s.ID) })
}

// orderedItems returns what a rekey under way leaves in a header wherever it is cut:
// the new version's token, and the keyslot that it names or announces; a token whose
// keyslot was removed; what a restored disk opens with. That is foreign to nobody. Two
// tokens of one version are none of a rekey.
func orderedItems(order *Order, report *exchange.VolumeReport) []Item {
	if order == nil {
		return nil
	}
	if order.isRekeyed() {
		return tokenItems(report)
	}
	var own exchange.VolumeReport
	var slots []int
	seen := make(map[uint32]bool)
	for _, t := range report.Tokens {
		if !forBoots(&t, report.ID) || !order.leaves(&t) {
			continue
		}
		if seen[t.Version] {
			return nil
		}
		seen[t.Version] = true
		own.Tokens = append(own.Tokens, t)
		if slots = append(slots, t.Slots...); t.Version == order.Version || t.Version == order.Withdrawn {
			slots = append(slots, t.Announced...)
		}
	}
	own.Slots = slotsAt(report, slots)
	return itemsOf(&own)
}

// tokenItems returns all tokens of the service for a volume, and what they name or
// announce: what a reencryption may leave.
func tokenItems(report *exchange.VolumeReport) []Item {
	own := exchange.VolumeReport{}
	var slots []int
	for _, t := range report.Tokens {
		if t.Volume == report.ID {
			own.Tokens, slots = append(own.Tokens, t), append(slots, slices.Concat(t.Slots, t.Announced)...)
		}
	}
	own.Slots = slotsAt(report, slots)
	return itemsOf(&own)
}

// leaves tells whether a token for boots may be there because of the order.
func (o *Order) leaves(t *exchange.LUKSToken) bool {
	switch {
	case t.Version == 0:
		return false
	case t.Version == o.Withdrawn:
		return true
	case o.Status == OrderCommitted:
		return t.Version == o.Version || len(t.Slots) == 0
	default:
		return t.Version == o.Version || t.Version == o.From
	}
}
