package kms

import (
	"context"
	"fmt"
	"strconv"

	"keywright.dev/kms/audit"
)

// ActionAssignKeyring is the action of moving a machine's secrets to another keyring.
const ActionAssignKeyring = "keyring.assign"

// Assigned is what moving a machine to a keyring did.
type Assigned struct {
	Machine Machine
	Keyring string
	// Volumes and Secrets count what was moved.
	Volumes, Secrets int
}

// AssignKeyring has a keyring wrap the secrets of a machine, former volumes
// included, and of the volumes that it adds from then on. All of them move in one
// transaction, or none: one that does not open is a [StateError].
func (s *Service) AssignKeyring(ctx context.Context, by Operator, ref, keyring string) (*Assigned, error) {
	k, err := s.FindKeyring(ctx, keyring)
	if err != nil {
		return nil, err
	}
	if k.Name == SystemKeyring {
		return nil, disallow("the system keyring wraps the service's own keys, and no machine's")
	}
	found, err := s.FindNamed(ctx, ref)
	if err != nil {
		return nil, err
	}
	var done Assigned
	err = s.change(ctx, by, Key{Machine: found.ID, Recovery: true}, func(state State) (Outcome, error) {
		if state.Machine == nil {
			return Outcome{}, ErrNotFound
		}
		out, err := s.assign(&state, k.Name)
		if err != nil {
			return Outcome{}, err
		}
		done = Assigned{*state.Machine, k.Name, len(out.Volumes), len(out.Moved)}
		d := by.draft(ActionAssignKeyring, found.ID, machineObject(found.ID))
		d.fact("keyring", keyringFor(state.Volumes), k.Name)
		d.fact("secrets", "", strconv.Itoa(done.Secrets))
		return s.entered(out, d, audit.Done, nil)
	})
	if err != nil {
		return nil, fmt.Errorf("%s machine/%s: %w", ActionAssignKeyring, found.ID, err)
	}
	return &done, nil
}

// assign moves volumes and secrets. The names that secrets are bound to are those of
// the machine's row, as in a rewrap.
func (s *Service) assign(state *State, keyring string) (out Outcome, err error) {
	for _, v := range state.Volumes {
		if v.Keyring != keyring {
			v.Keyring = keyring
			out.Volumes = append(out.Volumes, v)
		}
	}
	sealer := resealer{keys: s.Keys, keyring: keyring}
	for _, row := range state.Secrets {
		if row.Keyring == keyring {
			continue
		}
		b := &BoundSecret{Secret: row, Machine: state.Machine.ID, EK: state.Machine.EK, AK: state.Machine.AK}
		moved, err := sealer.reseal(b)
		if detail, poison := doesNotOpen(err); poison {
			return Outcome{}, disallow("the %s secret of volume/%s does not open: %s", row.Purpose, row.Volume, detail)
		}
		if err != nil {
			return Outcome{}, err
		}
		out.Moved = append(out.Moved, moved)
	}
	return out, nil
}

// keyringFor is the keyring of a machine's next volume: that of those it has.
func keyringFor(volumes []Volume) string {
	if len(volumes) == 0 {
		return DefaultKeyring
	}
	return volumes[0].Keyring
}
