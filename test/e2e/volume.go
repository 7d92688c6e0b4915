package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"keywright.dev/kms/api"
)

// rekeyPoll is how often it is looked whether a machine has carried out its orders.
const rekeyPoll = 500 * time.Millisecond

// Volumes returns what the service knows of the volumes of a machine.
func (s *Service) Volumes(ctx context.Context, machine string) ([]api.Volume, error) {
	var list []api.Volume
	if err := s.read(ctx, &list, "volume", "list", "--machine", machine); err != nil {
		return nil, err
	}
	for i := range list {
		var volume api.Volume
		if err := s.read(ctx, &volume, "volume", "show", list[i].ID); err != nil {
			return nil, err
		}
		list[i] = volume
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("machine/%s has no volumes", machine)
	}
	return list, nil
}

// Volume returns what the service knows of the only volume of a machine.
func (s *Service) Volume(ctx context.Context, machine string) (api.Volume, error) {
	list, err := s.Volumes(ctx, machine)
	if err != nil {
		return api.Volume{}, err
	}
	if len(list) != 1 {
		return api.Volume{}, fmt.Errorf("machine/%s has %d volumes, want one", machine, len(list))
	}
	return list[0], nil
}

// OrderRekey orders a rekey of every volume of a machine.
func (s *Service) OrderRekey(ctx context.Context, machine string, more ...string) error {
	list, err := s.Volumes(ctx, machine)
	for _, volume := range list {
		if err == nil {
			_, err = s.Operate(ctx, append([]string{"volume", "rekey", volume.ID, "--reason", "a test"}, more...)...)
		}
	}
	return err
}

// AwaitRekey waits until no volume of a machine has an order. Its error is nil where,
// of each, a version of its secret is the current one then, those before are kept for
// restores, and the header that was reported last has nothing that is not known.
func (s *Service) AwaitRekey(ctx context.Context, machine string, version uint32) error {
	for {
		list, err := s.Volumes(ctx, machine)
		if err != nil {
			return err
		}
		ordered := slices.IndexFunc(list, func(v api.Volume) bool { return v.Order != nil })
		if ordered < 0 {
			return allRekeyed(list, version)
		}
		select {
		case <-time.After(rekeyPoll):
		case <-ctx.Done():
			return fmt.Errorf("awaiting the rekey of volume/%s: %w: %+v", list[ordered].ID, ctx.Err(), *list[ordered].Order)
		}
	}
}

func allRekeyed(list []api.Volume, version uint32) error {
	var errs []error
	for _, volume := range list {
		errs = append(errs, rekeyed(volume, version))
	}
	return errors.Join(errs...)
}

func rekeyed(volume api.Volume, version uint32) error {
	var kept uint32
	for _, secret := range volume.Secrets {
		switch {
		case secret.Purpose != "luks-keyslot" || secret.Version == version && secret.Status == "current":
		case secret.Version < version && secret.Status == "restore-only":
			kept++
		default:
			return fmt.Errorf("version %d of the secret of volume/%s is %s, when version %d should be the current one", secret.Version, volume.ID, secret.Status, version)
		}
	}
	if kept != version-1 {
		return fmt.Errorf("of volume/%s %d versions of the secret before version %d are kept", volume.ID, kept, version)
	}
	if len(volume.Alarms)+len(volume.Foreign) > 0 {
		return fmt.Errorf("volume/%s has the alarms %v and unknown keyslots or tokens %v", volume.ID, volume.Alarms, volume.Foreign)
	}
	return nil
}

// read has a command of the operator print a value.
func (s *Service) read(ctx context.Context, value any, args ...string) error {
	output, err := s.Operate(ctx, append(args, "--format", "json")...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(output), value); err != nil {
		return fmt.Errorf("reading what keywright %v prints: %w", args, err)
	}
	return nil
}
