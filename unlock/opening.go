package unlock

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
	"keywright.dev/unlock/luks"
)

// errStaysOpen means that a boot failed and a mapping of it cannot be closed.
var errStaysOpen = errors.New("what was opened cannot be closed")

// openAll opens every volume or none, but for those that the machine boots
// without. What fails early, fails before there is a mapping: all keys are
// unsealed first. From the start there is a record, so that a missing one is a
// lost one.
func (b *Boot) openAll(ctx context.Context, release *exchange.Release) error {
	if err := b.Keep.Opened([]Opened{}); err != nil {
		return err
	}
	keys, err := b.match(release)
	if err != nil {
		return err
	}
	volumeKeys := make([]secret.Bytes, 0, len(keys))
	defer func() {
		for _, volumeKey := range volumeKeys {
			volumeKey.Wipe()
		}
	}()
	for i, v := range b.Volumes {
		volumeKey, err := b.Unseal(ctx, v, keys[i])
		if err != nil && b.leaveOut(v, err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("opening %s: %w", v.Config.Device, err)
		}
		volumeKeys = append(volumeKeys, volumeKey)
	}
	return b.mapAll(ctx, volumeKeys)
}

// mapAll makes every mapping or none. Each is recorded before it is there: a
// hand-over must know of all, whenever this process ends.
func (b *Boot) mapAll(ctx context.Context, volumeKeys []secret.Bytes) error {
	opened := make([]Opened, 0, len(b.Volumes))
	for i, v := range b.Volumes {
		before := opened
		opened = append(opened, Opened{Volume: v.ID, UUID: v.header().UUID, Root: v.Config.Root, Table: luks.Table{Name: v.Config.Name}})
		if err := b.Keep.Opened(opened); err != nil {
			return errors.Join(err, b.closeAll(ctx, before))
		}
		mapping, err := b.Opener.Open(ctx, v, volumeKeys[i])
		if err != nil && b.leaveUnmade(ctx, v, err) {
			opened = before
			continue
		}
		if err != nil {
			if !errors.Is(err, luks.ErrLeftOpen) {
				opened = before
			}
			return errors.Join(fmt.Errorf("opening %s: %w", v.Config.Device, err), b.closeAll(ctx, opened))
		}
		opened[len(before)].Table = mapping.Table
	}
	if err := b.Keep.Opened(opened); err != nil {
		return errors.Join(err, b.closeAll(ctx, opened))
	}
	return nil
}

// closeAll closes mappings in the reverse order and keeps which of them stay.
func (b *Boot) closeAll(ctx context.Context, opened []Opened) error {
	var errs []error
	stay := []Opened{}
	for _, o := range slices.Backward(opened) {
		err := b.Opener.Close(ctx, o.Table.Name)
		if err != nil && !errors.Is(err, luks.ErrNoMapping) {
			errs = append(errs, err)
			stay = append(stay, o)
		}
	}
	err := errors.Join(append(errs, b.Keep.Opened(stay))...)
	if len(stay) > 0 {
		return fmt.Errorf("%w: %w", errStaysOpen, err)
	}
	return err
}

// match returns the key of each volume. A release must answer for exactly the
// volumes that were asked for, and for the very headers that were validated.
func (b *Boot) match(release *exchange.Release) ([]secret.Bytes, error) {
	if len(release.Secrets) != len(b.Volumes) {
		return nil, fmt.Errorf("the service answered for %d volumes, %d were asked for", len(release.Secrets), len(b.Volumes))
	}
	keys := make([]secret.Bytes, len(b.Volumes))
	for i, v := range b.Volumes {
		s := find(release.Secrets, v.ID)
		switch {
		case s == nil || s.UUID != v.header().UUID:
			return nil, fmt.Errorf("the service did not answer for volume/%s on %s", v.ID, v.Config.Device)
		case s.Identity != v.Identity:
			return nil, fmt.Errorf("the header of %s is not the one that was enrolled", v.Config.Device)
		}
		keys[i] = s.Key
	}
	return keys, nil
}

func find(secrets []exchange.ReleasedSecret, volume string) *exchange.ReleasedSecret {
	for i := range secrets {
		if secrets[i].Volume == volume {
			return &secrets[i]
		}
	}
	return nil
}
