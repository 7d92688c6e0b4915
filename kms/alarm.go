package kms

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"keywright.dev/kms/audit"
)

// Alarm is a kind of alarm: something that does not stop a boot by itself, or
// stopped one already, and that an operator should look at.
type Alarm string

// The kinds.
const (
	// AlarmCounters is of a machine that was refused because its TPM's counters
	// went back, and had no release since.
	AlarmCounters Alarm = "counters"
	// AlarmCopied is of a volume whose volume key another machine has as well.
	AlarmCopied Alarm = "copied"
	// AlarmForeign is of a volume with a keyslot or token that nobody accepted.
	AlarmForeign Alarm = "foreign"
)

// Alarms returns every kind.
func Alarms() []Alarm { return []Alarm{AlarmCounters, AlarmCopied, AlarmForeign} }

// The actions of audit entries about alarms, which the service enters, and the
// operators' that ends them.
const (
	ActionCopied       = "volume.copied"
	ActionForeign      = "volume.foreign"
	ActionAcceptVolume = "volume.accept"
)

// alarm is an entry to be made about a volume.
type alarm struct {
	action, machine, volume string
	facts                   []audit.Fact
}

// raise enters alarms behind what the outcome has entered already.
func (s *Service) raise(out *Outcome, request string, alarms []alarm) error {
	for _, a := range alarms {
		d := draft{
			action: a.action, machine: a.machine, object: volumeObject(a.volume),
			actor: audit.Actor{Kind: audit.ActorService, ID: "alarms"}, request: request, facts: a.facts,
		}
		var err error
		if *out, err = s.entered(*out, d, audit.Done, nil); err != nil {
			return err
		}
	}
	return nil
}

func volumeObject(id string) string { return "volume/" + id }

// errSameKey rolls back a decision that has to see which other volumes have a
// volume key that is reported for the first time.
var errSameKey = errors.New("the volumes with the same volume key are wanted")

// wantsSameKey notes the digests that are new, once.
func (r *releasing) wantsSameKey(state *State) bool {
	if r.sameKeys != nil {
		return false
	}
	for _, report := range r.details.Volumes {
		known, digest := findVolume(state.Volumes, report.ID), report.VolumeKeyDigest
		if known != nil && known.Status == VolumeActive && len(digest) > 0 && !bytes.Equal(known.VolumeKeyDigest, digest) {
			r.sameKeys = append(r.sameKeys, digest)
		}
	}
	return r.sameKeys != nil
}

// holdKey takes over the digest of the volume key that was reported. Where it is a
// new one, and on other machines, the volume is flagged, and so are those of
// theirs that were not; it returns the alarms for each.
func (v *Volume) holdKey(digest []byte, sameKey []Volume, out *Outcome) []alarm {
	if len(digest) == 0 || bytes.Equal(v.VolumeKeyDigest, digest) {
		return nil
	}
	var alarms []alarm
	v.VolumeKeyDigest, v.Copied = digest, false
	for _, other := range sameKey {
		if !bytes.Equal(other.VolumeKeyDigest, digest) {
			continue
		}
		if !v.Copied {
			v.Copied = true
			alarms = append(alarms, copiedAlarm(v, &other))
		}
		if !other.Copied && other.Status != VolumeFormer && findVolume(out.Volumes, other.ID) == nil {
			other.Copied = true
			out.Volumes = append(out.Volumes, other)
			alarms = append(alarms, copiedAlarm(&other, v))
		}
	}
	return alarms
}

func copiedAlarm(v, other *Volume) alarm {
	return alarm{ActionCopied, v.Machine, v.ID, []audit.Fact{
		{Name: "volume_key.digest", Is: hexBytes(v.VolumeKeyDigest)},
		{Name: "volume_key.also_in", Is: volumeObject(other.ID)},
		{Name: "volume_key.also_on", Is: machineObject(other.Machine)},
	}}
}

// Acceptance is what an operator accepts of a volume.
type Acceptance struct {
	// Copied accepts that the volume key is on other machines as well.
	Copied bool
	// Inventory is the digest of the slots and tokens that the operator saw
	// reported. Where it is given and others are reported by now, nothing is
	// accepted.
	Inventory string
	Reason    string // for the audit log
}

// AcceptVolume records the slots and tokens that were reported last as the ones
// that the volume should have.
func (s *Service) AcceptVolume(ctx context.Context, by Operator, volume *Volume, a Acceptance) (*Volume, error) {
	var accepted Volume
	err := s.change(ctx, by, Key{Machine: volume.Machine}, func(state State) (Outcome, error) {
		known := findVolume(state.Volumes, volume.ID)
		if known == nil {
			return Outcome{}, ErrNotFound
		}
		d := by.draft(ActionAcceptVolume, known.Machine, volumeObject(known.ID))
		accepted = *known
		if err := accepted.accept(a, &d); err != nil {
			return Outcome{}, err
		}
		return s.entered(Outcome{Volumes: []Volume{accepted}}, d, audit.Done, nil)
	})
	if err != nil {
		return nil, fmt.Errorf("%s volume/%s: %w", ActionAcceptVolume, volume.ID, err)
	}
	return &accepted, nil
}

// accept changes the row and says in the entry what is accepted.
func (v *Volume) accept(a Acceptance, d *draft) error {
	switch {
	case v.Status != VolumeActive:
		return disallow("it is %s: only what an active volume reports can be accepted", v.Status)
	case a.Inventory != "" && a.Inventory != v.InventoryDigest():
		return disallow("it reported another header meanwhile: look at it again with `keywright volume show`")
	}
	report, err := ParseInventory(v.Inventory)
	if err != nil {
		return err
	}
	d.facts = append(d.facts, factsOf(v.foreign(report))...)
	v.Accepted, v.Foreign = acceptedOf(report), false
	if a.Copied {
		d.fact("volume_key.copied", fmt.Sprint(v.Copied), "accepted")
		v.Copied = false
	}
	d.fact("reason", "", a.Reason)
	return nil
}
