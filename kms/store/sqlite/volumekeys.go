package sqlite

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"keywright.dev/kms"
	"keywright.dev/kms/store/sqlite/sqlitedb"
)

// VolumeKeys implements [kms.Reader].
func (s *Store) VolumeKeys(ctx context.Context, after string, limit int) (list []kms.VolumeKeys, err error) {
	err = s.snapshot(ctx, func(rows *sqlitedb.Queries) error {
		list, err = readVolumeKeys(ctx, rows, after, limit)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading what is known of volumes' keys: %w", err)
	}
	return list, nil
}

func readVolumeKeys(ctx context.Context, rows *sqlitedb.Queries, after string, limit int) ([]kms.VolumeKeys, error) {
	volumes, err := rows.VolumesWithMachines(ctx, sqlitedb.VolumesWithMachinesParams{After: after, Most: most(limit)})
	if err != nil || len(volumes) == 0 {
		return nil, err
	}
	last := volumes[len(volumes)-1].ID
	secrets, err := rows.SecretsBetween(ctx, sqlitedb.SecretsBetweenParams{After: after, Last: last})
	if err != nil {
		return nil, err
	}
	orders, err := rows.OrdersBetween(ctx, sqlitedb.OrdersBetweenParams{After: after, Last: last})
	if err != nil {
		return nil, err
	}
	list := make([]kms.VolumeKeys, 0, len(volumes))
	for _, row := range volumes {
		v, err := toVolumeKeys(row)
		if err != nil {
			return nil, err
		}
		for ; len(secrets) > 0 && secrets[0].Volume == v.ID; secrets = secrets[1:] {
			h, err := toHistory(secrets[0])
			if err != nil {
				return nil, err
			}
			v.Secrets = append(v.Secrets, h)
		}
		if len(orders) > 0 && orders[0].Volume == v.ID {
			order, err := toOrder(orders[0])
			if err != nil {
				return nil, err
			}
			v.Order, orders = &order, orders[1:]
		}
		list = append(list, v)
	}
	return list, nil
}

func toVolumeKeys(r sqlitedb.VolumesWithMachinesRow) (kms.VolumeKeys, error) {
	wrapped, err := toRanges(r.WrappedBefore)
	return kms.VolumeKeys{
		ID: r.ID, Status: kms.VolumeStatus(r.Status), Keyring: r.Keyring, Created: toTime(r.Created), Reencrypted: toTime(r.Reencrypted),
		Machine: r.Machine, Name: r.Name, Group: r.InGroup, MachineStatus: kms.MachineStatus(r.MachineStatus),
		Released: toTime(r.LastRelease), Wrapped: wrapped,
	}, err
}

func toHistory(r sqlitedb.SecretsBetweenRow) (kms.SecretHistory, error) {
	wrapped, err := toRanges(r.WrappedBefore)
	return kms.SecretHistory{
		Purpose: r.Purpose, Version: uint32(r.Version), Status: kms.SecretStatus(r.Status),
		Created: toTime(r.Created), Replaced: toTime(r.Replaced), AtBoot: r.AtBoot,
		Wrapped: append(wrapped, kms.KeyringRange{Keyring: r.Keyring, First: uint32(r.WrappedFirst), Last: uint32(r.WrappedLast)}),
	}, err
}

// toRanges reads what the triggers write.
func toRanges(text string) (list []kms.KeyringRange, err error) {
	for _, field := range strings.Fields(text) {
		keyring, versions, _ := strings.Cut(field, "@")
		first, last, _ := strings.Cut(versions, "-")
		from, err1 := strconv.ParseUint(first, 10, 32)
		to, err2 := strconv.ParseUint(last, 10, 32)
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("%q does not name versions of a keyring", field)
		}
		list = append(list, kms.KeyringRange{Keyring: keyring, First: uint32(from), Last: uint32(to)})
	}
	return list, nil
}
