package kms

import (
	"bytes"
	"strconv"
	"time"

	"keywright.dev/kms/audit"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/recovery"
	"keywright.dev/kms/secret"
)

// deliverReencryption hands out what a reencryption needs beside the current secret:
// until it has begun, the recovery key that takes the place of the one before.
func (r *rekeying) deliverReencryption(out *Outcome, state *State, v *Volume, order *Order, released *exchange.ReleasedSecret) error {
	now := r.service.Clock()
	again := *order
	if order.Status == OrderReencrypting && released.Identity == [32]byte(v.Identity) {
		again.beginAnew()
	}
	order = &again
	again.Deliveries, again.Delivered = order.Deliveries+1, now
	out.Orders = []Order{again}
	released.Reencrypt = &exchange.Reencryption{
		From: [32]byte(v.Identity), Begun: order.Status == OrderReencrypting, Rate: r.service.ReencryptRate, Lose: order.Lost,
	}
	if order.Status == OrderReencrypting {
		return nil
	}
	row := findSecret(state.Secrets, v.ID, PurposeRecovery, SecretCurrent)
	if row == nil {
		return nil
	}
	if order.Status == OrderRekeyed {
		if row = findSecret(state.Secrets, v.ID, PurposeRecovery, SecretPending); row == nil {
			made, err := r.service.newRecoverySecret(out, v, newestSecret(state.Secrets, v.ID, PurposeRecovery)+1, r.binding)
			released.Recovery, released.RecoveryVersion = made.Recovery, made.RecoveryVersion
			return err
		}
	}
	key, err := r.service.Keys.Unwrap(secretContext(r.binding, v.Machine, row, PurposeRecovery), row.Wrapped)
	released.Recovery, released.RecoveryVersion = key, row.Version
	return err
}

func newRecoveryKey(s *Service, v *Volume, row *Secret, binding [32]byte) (secret.Bytes, error) {
	key, err := recovery.NewKey(s.Random)
	if err != nil {
		return secret.Bytes{}, err
	}
	row.Wrapped, row.KeyringVersion, err = s.Keys.Wrap(secretContext(binding, v.Machine, row, PurposeRecovery), key)
	if err == nil {
		row.AgeCopy, err = s.Recovery.Copy(key)
	}
	if err != nil {
		key.Wipe()
		return secret.Bytes{}, err
	}
	return key, nil
}

// advanceReencryption moves a reencryption on whose rekey is over.
func (r *rekeyed) advanceReencryption(out *Outcome, state *State, v Volume, order Order, d *draft) (audit.Outcome, *Refusal) {
	if !order.isRekeyed() {
		return audit.Done, refuse(ReasonOrder, "no reencryption of volume/%s goes on", v.ID)
	}
	d.fact("reencryption", string(order.Status), string(r.details.Reencryption))
	switch r.details.Reencryption {
	case exchange.StageReady:
		return audit.Done, r.ready(out, state, &v, &order, d)
	case exchange.StageBegun:
		return audit.Done, r.begun(out, &order, d)
	case exchange.StageProgress:
		return audit.Done, r.progress(out, &order)
	default:
		return audit.Done, r.reencrypted(out, state, &v, &order, d)
	}
}

// ready makes the new recovery key the current one: from now on people are shown it,
// and the machine may take the keyslot of the one before away.
func (r *rekeyed) ready(out *Outcome, state *State, v *Volume, order *Order, d *draft) *Refusal {
	if order.Status == OrderReady {
		r.status = exchange.RekeyReady
		return nil
	}
	if order.Status != OrderRekeyed || order.Delivered.IsZero() {
		return refuse(ReasonOrder, "the reencryption of volume/%s is %s: nothing is to be made ready", v.ID, order.Status)
	}
	report := &r.details.Volume
	order.weigh(report)
	order.Fault, order.Reported = "", r.service.Clock()
	if order.Waits() {
		d.lost(order.Lost)
		out.Orders, r.status = []Order{*order}, exchange.RekeyRekeyed
		return nil
	}
	next := findSecret(state.Secrets, v.ID, PurposeRecovery, SecretPending)
	if findSecret(state.Secrets, v.ID, PurposeRecovery, SecretCurrent) == nil {
		next = nil // of an enrolment that was run again without one: no keyslot has it
	}
	if refusal := r.judgeKeyslots(report, order, next); refusal != nil {
		return refusal
	}
	if next != nil {
		out.promote(state.Secrets, next, r.service.Clock())
		d.fact("recovery.version", "", version(next))
	}
	if refusal := v.takeOver(report, ownOf(report, order.Version, next)); refusal != nil {
		return refusal
	}
	order.Status, order.Deliveries = OrderReady, 0
	out.Volumes, out.Orders, r.status = []Volume{*v}, []Order{*order}, exchange.RekeyReady
	return nil
}

// judgeKeyslots wants one keyslot of the current secret, and one of a recovery key
// where the volume has one.
func (r *rekeyed) judgeKeyslots(report *exchange.VolumeReport, order *Order, recovery *Secret) *Refusal {
	if n := len(ownSlots(report, order.Version)); n != 1 || len(report.Becomes) > 0 {
		return refuse(ReasonVolume, "the report shows %d keyslots of version %d, want one, in a header that is not under reencryption", n, order.Version)
	}
	if recovery == nil {
		return nil
	}
	if n := len(recoverySlots(report, recovery.Version)); n != 1 {
		return refuse(ReasonVolume, "the report shows %d keyslots of version %d of the recovery key, want one", n, recovery.Version)
	}
	return nil
}

// begun holds fast what the header is going to be. What was lost was agreed to
// before; it is gone now.
func (r *rekeyed) begun(out *Outcome, order *Order, d *draft) *Refusal {
	switch {
	case !order.mayBeUnder():
		return refuse(ReasonOrder, "the reencryption of volume/%s is %s: it must not have begun", order.Volume, order.Status)
	case len(r.becomes) == 0:
		return refuse(ReasonVolume, "the LUKS header of volume/%s is not under reencryption", order.Volume)
	}
	if order.Status == OrderReady {
		d.lost(order.Lost)
		order.begin(r.becomes) // and not each time: that is no progress
	}
	order.Reported = r.service.Clock()
	out.Orders, r.status = []Order{*order}, exchange.RekeyReencrypting
	return nil
}

// beginAnew is for a disk that was put back from before its reencryption began.
func (o *Order) beginAnew() {
	o.Status, o.Becomes, o.Deliveries, o.Progress = OrderRekeyed, nil, 0, Progress{}
}

func (o *Order) begin(becomes []byte) {
	o.Status, o.Becomes, o.Deliveries, o.Fault = OrderReencrypting, becomes, 0, ""
}

// progress keeps how far it has come. As long as it gets on, the machine may go on
// with it after any number of restarts.
func (r *rekeyed) progress(out *Outcome, order *Order) *Refusal {
	if order.Status != OrderReencrypting || len(r.becomes) == 0 {
		return refuse(ReasonOrder, "the reencryption of volume/%s has not begun", order.Volume)
	}
	said := r.details.Progress
	if said.Done > order.Progress.Done {
		order.Deliveries, order.Fault = 0, ""
	}
	order.Progress = Progress{Done: said.Done, Total: said.Total, Rate: said.Rate, Left: seconds(said.Left), At: r.service.Clock()}
	out.Orders, r.status = []Order{*order}, exchange.RekeyReencrypting
	return nil
}

// reencrypted ends the order: the header that it ended with is the volume's.
func (r *rekeyed) reencrypted(out *Outcome, state *State, v *Volume, order *Order, d *draft) *Refusal {
	if order.Status != OrderReencrypting {
		return refuse(ReasonOrder, "the reencryption of volume/%s has not begun", v.ID)
	}
	if asked := r.statement.Volumes[0].Identity; !bytes.Equal(asked[:], order.Becomes) {
		return refuse(ReasonVolume, "the LUKS header of volume/%s is not the one that its reencryption ends with", v.ID)
	}
	d.fact("volume.identity", hexBytes(v.Identity), hexBytes(order.Becomes))
	d.fact("volume_key.digest", hexBytes(v.VolumeKeyDigest), hexBytes(r.details.Volume.VolumeKeyDigest))
	recovery := findSecret(state.Secrets, v.ID, PurposeRecovery, SecretCurrent)
	if refusal := r.judgeKeyslots(&r.details.Volume, order, recovery); refusal != nil {
		return refusal
	}
	if refusal := r.service.becomeReencrypted(v, order, &r.details.Volume, recovery); refusal != nil {
		return refusal
	}
	out.Volumes, out.DropOrders, r.status = []Volume{*v}, []string{v.ID}, exchange.RekeyFinished
	return nil
}

// becomeReencrypted takes over the header that a reencryption ended with. Nothing of
// the one before is accepted any more.
func (s *Service) becomeReencrypted(v *Volume, order *Order, report *exchange.VolumeReport, recovery *Secret) *Refusal {
	if len(report.VolumeKeyDigest) == 0 {
		return refuse(ReasonVolume, "the report shows no volume key of volume/%s", v.ID)
	}
	v.Accepted = nil
	if refusal := v.takeOver(report, ownOf(report, order.Version, recovery)); refusal != nil {
		return refusal
	}
	v.Identity, v.VolumeKeyDigest, v.Copied, v.Reencrypted = order.Becomes, report.VolumeKeyDigest, false, s.Clock()
	return nil
}

// heedReencryptions takes over that a reencryption has begun whose report was lost, and
// has each be delivered a few times more. That one has ended is the running system's to
// report: a boot gives no more than its header.
func (r *releasing) heedReencryptions(out *Outcome, state *State) {
	for _, asked := range r.statement.Volumes {
		order, becomes := findOrder(state.Orders, asked.ID), r.becomes(asked.ID)
		if order == nil || !order.isRekeyed() || order.Deliveries == 0 && order.Status != OrderReady {
			continue
		}
		next := *order
		next.Deliveries = 0
		if next.Status == OrderReady && len(becomes) > 0 {
			next.begin(becomes)
		}
		out.Orders = append(out.Orders, next)
	}
}

// recoverySlots returns the keyslots that tokens for recovery keys name, of one
// version.
func recoverySlots(report *exchange.VolumeReport, version uint32) (slots []int) {
	for i := range report.Tokens {
		if t := &report.Tokens[i]; forRecovery(t, report.ID) && t.Version == version {
			slots = append(slots, t.Slots...)
		}
	}
	return slots
}

func forRecovery(t *exchange.LUKSToken, volume string) bool {
	return t.Volume == volume && t.Purpose == PurposeRecovery
}

// ownOf returns the tokens of the service for the current secret and the recovery
// key, and their keyslots.
func ownOf(report *exchange.VolumeReport, version uint32, recovery *Secret) []Item {
	own := exchange.VolumeReport{}
	var slots []int
	for _, t := range report.Tokens {
		boots := forBoots(&t, report.ID) && t.Version == version
		if boots || recovery != nil && forRecovery(&t, report.ID) && t.Version == recovery.Version {
			own.Tokens, slots = append(own.Tokens, t), append(slots, t.Slots...)
		}
	}
	own.Slots = slotsAt(report, slots)
	return itemsOf(&own)
}

func version(s *Secret) string { return strconv.FormatUint(uint64(s.Version), 10) }

func seconds(n uint64) time.Duration { return time.Duration(n) * time.Second }
