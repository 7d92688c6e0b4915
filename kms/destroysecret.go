package kms

import (
	"context"
	"fmt"
	"time"

	"keywright.dev/kms/audit"
)

// ActionDestroySecret is the action of destroying a secret that a rekey replaced.
const ActionDestroySecret = "volume.destroy_secret"

// DestroySecret destroys a restore-only version of a volume's secret: images of the
// disk from before the rekey that replaced it open with nothing but a recovery key
// then. It is refused where the disk may need it: while an order is open that needs it, or
// a restore of the machine is announced.
func (s *Service) DestroySecret(ctx context.Context, by Operator, volume *Volume, version uint32, reason string) (*Secret, error) {
	var destroyed *Secret
	err := s.change(ctx, by, Key{Machine: volume.Machine}, func(state State) (Outcome, error) {
		v := findVolume(state.Volumes, volume.ID)
		if v == nil {
			return Outcome{}, ErrNotFound
		}
		var err error
		if destroyed, err = destroyable(&state, v.ID, version, s.Clock()); err != nil {
			return Outcome{}, err
		}
		d := by.draft(ActionDestroySecret, v.Machine, volumeObject(v.ID))
		d.fact("version", fmt.Sprint(version), "")
		d.fact("replaced", formatTime(destroyed.Replaced), "")
		d.fact("reason", "", reason)
		return s.entered(Outcome{DropSecrets: []SecretRef{destroyed.Ref()}}, d, audit.Done, nil)
	})
	if err != nil {
		return nil, fmt.Errorf("%s volume/%s@%d: %w", ActionDestroySecret, volume.ID, version, err)
	}
	return destroyed, nil
}

func destroyable(state *State, volume string, version uint32, now time.Time) (*Secret, error) {
	for i := range state.Secrets {
		s := &state.Secrets[i]
		if s.Volume != volume || s.Purpose != PurposeKeyslot || s.Version != version {
			continue
		}
		switch {
		case s.Status != SecretRestoreOnly:
			return nil, disallow("version %d is %s: only what a rekey replaced is destroyed", version, s.Status)
		case findOrder(state.Orders, volume).mayNeed(version, state.Secrets):
			return nil, disallow("an order is open for volume/%s, whose disk may need version %d until it is over", volume, version)
		case state.Machine != nil && now.Before(state.Machine.RestoreUntil):
			return nil, disallow("a restore of machine/%s is announced until %s, which may need version %d: `keywright machine expect-restore` with another --until changes that",
				state.Machine.ID, formatTime(state.Machine.RestoreUntil), version)
		default:
			return s, nil
		}
	}
	return nil, disallow("volume/%s has no version %d of its secret: `keywright volume show` names those that there are", volume, version)
}
