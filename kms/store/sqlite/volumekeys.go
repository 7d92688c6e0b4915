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
	return s.volumeKeys(ctx, func(rows *sqlitedb.Queries) (k keyRows, err error) {
		k.volumes, err = rows.VolumesWithMachines(ctx, sqlitedb.VolumesWithMachinesParams{After: after, Most: most(limit)})
		if err != nil || len(k.volumes) == 0 {
			return k, err
		}
		last := k.volumes[len(k.volumes)-1].ID
		if k.secrets, err = rows.SecretsBetween(ctx, sqlitedb.SecretsBetweenParams{After: after, Last: last}); err != nil {
			return k, err
		}
		k.orders, err = rows.OrdersBetween(ctx, sqlitedb.OrdersBetweenParams{After: after, Last: last})
		return k, err
	})
}

// VolumeKeysOf implements [kms.Reader].
func (s *Store) VolumeKeysOf(ctx context.Context, ids []string) (list []kms.VolumeKeys, err error) {
	return s.volumeKeys(ctx, func(rows *sqlitedb.Queries) (k keyRows, err error) {
		volumes, err := rows.VolumesWithMachinesOf(ctx, ids)
		if err != nil {
			return k, err
		}
		secrets, err := rows.SecretsOfVolumes(ctx, ids)
		if err != nil {
			return k, err
		}
		k.volumes = each(volumes, func(r sqlitedb.VolumesWithMachinesOfRow) sqlitedb.VolumesWithMachinesRow {
			return sqlitedb.VolumesWithMachinesRow(r)
		})
		k.secrets = each(secrets, func(r sqlitedb.SecretsOfVolumesRow) sqlitedb.SecretsBetweenRow { return sqlitedb.SecretsBetweenRow(r) })
		k.orders, err = rows.OrdersOfVolumes(ctx, ids)
		return k, err
	})
}

// VolumesToPlan implements [kms.Reader].
func (s *Store) VolumesToPlan(ctx context.Context, which kms.ToPlan, limit int) ([]string, error) {
	ids, err := s.rows.VolumesToPlan(ctx, sqlitedb.VolumesToPlanParams{
		Made: fromTime(which.Made), Begun: fromTime(which.Begun), Replaced: fromTime(which.Replaced), Most: most(limit),
	})
	if err != nil {
		return nil, fmt.Errorf("finding volumes to plan for: %w", err)
	}
	return ids, nil
}

// keyRows are what is known of some volumes' keys, each list in their order.
type keyRows struct {
	volumes []sqlitedb.VolumesWithMachinesRow
	secrets []sqlitedb.SecretsBetweenRow
	orders  []sqlitedb.Order
}

func (s *Store) volumeKeys(ctx context.Context, read func(*sqlitedb.Queries) (keyRows, error)) (list []kms.VolumeKeys, err error) {
	err = s.snapshot(ctx, func(rows *sqlitedb.Queries) error {
		k, err := read(rows)
		if err == nil {
			list, err = k.join()
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading what is known of volumes' keys: %w", err)
	}
	return list, nil
}

func (k *keyRows) join() (list []kms.VolumeKeys, err error) {
	secrets, orders := k.secrets, k.orders
	for _, row := range k.volumes {
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
		ID: r.ID, Status: kms.VolumeStatus(r.Status), Keyring: r.Keyring, Created: toTime(r.Created), Reencrypted: toTime(r.Reencrypted), Size: uint64(r.Size),
		Machine: r.Machine, Name: r.Name, Group: r.InGroup, MachineStatus: kms.MachineStatus(r.MachineStatus),
		Released: toTime(r.LastRelease), RestoreUntil: toTime(r.RestoreUntil), Wrapped: wrapped,
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
