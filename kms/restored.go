package kms

import (
	"fmt"
	"slices"
	"time"
)

// opensWith returns the secret that opens a volume's disk: the current one, unless
// the guest, whose initramfs is measured, says that the header is from before a
// rekey. What opens that is restore-only: it is released once an operator announced
// the restore, and again only until the rekey that follows at once is committed.
func (r *releasing) opensWith(state *State, v *Volume) (*Secret, *Refusal) {
	current := findSecret(state.Secrets, v.ID, PurposeKeyslot, SecretCurrent)
	if current == nil {
		return nil, refuse(ReasonVolume, "volume/%s has no current secret", v.ID)
	}
	versions := r.reportedVersions(v.ID)
	if len(versions) == 0 || slices.Contains(versions, current.Version) {
		return current, nil
	}
	old := newestOfVersions(state.Secrets, v.ID, versions)
	if old == nil {
		return current, nil
	}
	if order := findOrder(state.Orders, v.ID); order != nil && order.Status == OrderOpen && order.From == old.Version {
		return old, nil
	}
	if !r.now.Before(state.Machine.RestoreUntil) {
		return nil, refuse(ReasonRestored, "the disk of volume/%s is from before a rekey: it opens with version %d of its secret, which is restore-only, and nobody announced a restore", v.ID, old.Version)
	}
	r.restored = append(r.restored, old.Ref())
	return old, nil
}

// reportedVersions returns which versions of its secret a volume's header has
// keyslots for.
func (r *releasing) reportedVersions(volume string) (versions []uint32) {
	for _, report := range r.details.Volumes {
		if report.ID != volume {
			continue
		}
		for _, t := range report.Tokens {
			if forBoots(&t, volume) && t.Version > 0 && len(t.Slots) > 0 {
				versions = append(versions, t.Version)
			}
		}
	}
	return versions
}

func newestOfVersions(secrets []Secret, volume string, versions []uint32) (newest *Secret) {
	for i := range secrets {
		s := &secrets[i]
		if s.Volume == volume && s.Purpose == PurposeKeyslot && s.Status == SecretRestoreOnly && slices.Contains(versions, s.Version) &&
			(newest == nil || s.Version > newest.Version) {
			newest = s
		}
	}
	return newest
}

// rekeyRestored orders rekeys of what was restored, and uses up the announcement.
func (r *releasing) rekeyRestored(m *Machine, state *State) {
	for _, ref := range r.restored {
		order := Order{
			Volume: ref.Volume, Machine: m.ID, Kind: KindRekey, Status: OrderOpen, Created: r.now, By: "service/restore",
			Reason: fmt.Sprintf("the disk was restored: version %d opened it", ref.Version),
		}
		known := findOrder(state.Orders, ref.Volume)
		switch {
		case known == nil:
			state.Orders = append(state.Orders, order)
			known = &state.Orders[len(state.Orders)-1]
		case known.Status != OrderOpen:
			order.AtBoot, order.Kind = known.AtBoot, known.Kind
			*known = order
		}
		known.From = ref.Version
	}
	if len(r.restored) > 0 {
		m.RestoreUntil = time.Time{}
	}
}

// deliverNext adds the secrets that rekeys ordered.
func (r *releasing) deliverNext(out *Outcome, state *State) error {
	for i := range r.release.Secrets {
		released := &r.release.Secrets[i]
		order := findOrder(state.Orders, released.Volume)
		if order == nil || order.Status != OrderOpen {
			continue
		}
		v := findVolume(state.Volumes, released.Volume)
		if err := r.service.deliverOrdered(released, out, state, v, *order, r.binding, true); err != nil {
			return err
		}
	}
	return nil
}
