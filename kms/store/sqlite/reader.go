package sqlite

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"keywright.dev/kms"
	"keywright.dev/kms/store/sqlite/sqlitedb"
)

// snapshot runs queries that must see the same moment.
func (s *Store) snapshot(ctx context.Context, query func(*sqlitedb.Queries) error) error {
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return fmt.Errorf("beginning to read the store: %w", err)
	}
	err = query(s.rows.WithTx(tx))
	// There is nothing to undo: the connection goes back.
	return errors.Join(err, tx.Rollback())
}

// most makes a limit SQL's, for which a negative one is none.
func most(limit int) int64 { return int64(max(limit, 0)) }

// Machine implements [kms.Reader].
func (s *Store) Machine(ctx context.Context, id string) (*kms.Machine, error) {
	row, err := s.rows.GetMachine(ctx, id)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("machine %.64s: %w", id, kms.ErrNotFound)
	} else if err != nil {
		return nil, fmt.Errorf("reading a machine: %w", err)
	}
	m, err := toMachine(row)
	return &m, err
}

// FindMachines implements [kms.Reader]: first the machine of that name, then
// those that proposed it, then ids.
func (s *Store) FindMachines(ctx context.Context, ref string, limit int) ([]kms.Machine, error) {
	var found []sqlitedb.WholeMachine
	err := s.snapshot(ctx, func(rows *sqlitedb.Queries) error {
		named, err := rows.MachinesByName(ctx, ref)
		if err != nil {
			return err
		}
		proposed, err := rows.MachinesByProposedName(ctx, sqlitedb.MachinesByProposedNameParams{Proposed: ref, Limit: most(limit)})
		if err != nil {
			return err
		}
		begin, err := rows.MachinesBetween(ctx, sqlitedb.MachinesBetweenParams{Low: ref, Beyond: beyond(ref), Most: most(limit)})
		found = slices.Concat(named, proposed, begin)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("finding machines: %w", err)
	}
	seen := make(map[string]bool)
	found = slices.DeleteFunc(found, func(r sqlitedb.WholeMachine) bool {
		again := seen[r.ID]
		seen[r.ID] = true
		return again
	})
	return toMachines(found[:min(max(limit, 0), len(found))])
}

// beyond returns what is greater than every id that begins with prefix.
func beyond(prefix string) string { return prefix + "\x7f" }

func toMachines(rows []sqlitedb.WholeMachine) ([]kms.Machine, error) {
	var machines []kms.Machine
	for _, r := range rows {
		m, err := toMachine(r)
		if err != nil {
			return nil, err
		}
		machines = append(machines, m)
	}
	return machines, nil
}

// Machines implements [kms.Reader].
func (s *Store) Machines(ctx context.Context, filter kms.MachineFilter, after string, limit int) ([]kms.Machine, error) {
	rows, err := s.listMachines(ctx, filter, after, most(limit))
	if err != nil {
		return nil, fmt.Errorf("listing machines: %w", err)
	}
	return toMachines(rows)
}

func (s *Store) listMachines(ctx context.Context, f kms.MachineFilter, after string, limit int64) ([]sqlitedb.WholeMachine, error) {
	status := string(f.Status)
	switch {
	case status != "" && f.Group != "":
		return s.rows.ListMachinesByStatusAndGroup(ctx, sqlitedb.ListMachinesByStatusAndGroupParams{
			Status: status, InGroup: f.Group, ID: after, Limit: limit,
		})
	case status != "":
		return s.rows.ListMachinesByStatus(ctx, sqlitedb.ListMachinesByStatusParams{Status: status, ID: after, Limit: limit})
	case f.Group != "":
		return s.rows.ListMachinesByGroup(ctx, sqlitedb.ListMachinesByGroupParams{InGroup: f.Group, ID: after, Limit: limit})
	default:
		return s.rows.ListMachines(ctx, sqlitedb.ListMachinesParams{ID: after, Limit: limit})
	}
}

// FindVolumes implements [kms.Reader].
func (s *Store) FindVolumes(ctx context.Context, ref string, limit int) ([]kms.Volume, error) {
	var found []sqlitedb.Volume
	err := s.snapshot(ctx, func(rows *sqlitedb.Queries) error {
		begin, err := rows.VolumesBetween(ctx, sqlitedb.VolumesBetweenParams{Low: ref, Beyond: beyond(ref), Most: most(limit)})
		if err != nil {
			return err
		}
		named, err := rows.VolumesByUUID(ctx, sqlitedb.VolumesByUUIDParams{UUID: ref, Most: most(limit)})
		found = slices.Concat(begin, named)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("finding volumes: %w", err)
	}
	return each(found[:min(max(limit, 0), len(found))], toVolume), nil
}

// Volumes implements [kms.Reader].
func (s *Store) Volumes(ctx context.Context, machine, after string, limit int) (_ []kms.Volume, err error) {
	var rows []sqlitedb.Volume
	if machine == "" {
		rows, err = s.rows.ListVolumes(ctx, sqlitedb.ListVolumesParams{ID: after, Limit: most(limit)})
	} else {
		rows, err = s.rows.ListVolumesOfMachine(ctx, sqlitedb.ListVolumesOfMachineParams{
			Machine: machine, ID: after, Limit: most(limit),
		})
	}
	if err != nil {
		return nil, fmt.Errorf("listing volumes: %w", err)
	}
	return each(rows, toVolume), nil
}

// AlarmedVolumes implements [kms.Reader].
func (s *Store) AlarmedVolumes(ctx context.Context, alarm kms.Alarm, after string, limit int) (_ []kms.Volume, err error) {
	var rows []sqlitedb.Volume
	switch alarm {
	case kms.AlarmForeign:
		rows, err = s.rows.ListForeignVolumes(ctx, sqlitedb.ListForeignVolumesParams{ID: after, Limit: most(limit)})
	case kms.AlarmCopied:
		rows, err = s.rows.ListCopiedVolumes(ctx, sqlitedb.ListCopiedVolumesParams{ID: after, Limit: most(limit)})
	}
	if err != nil {
		return nil, fmt.Errorf("listing volumes with an alarm: %w", err)
	}
	return each(rows, toVolume), nil
}

// SameKey implements [kms.Reader].
func (s *Store) SameKey(ctx context.Context, digest []byte, machine string, limit int) ([]kms.Volume, error) {
	rows, err := s.rows.VolumesWithKey(ctx, sqlitedb.VolumesWithKeyParams{
		VolumeKeyDigest: digest, Machine: machine, Limit: most(limit),
	})
	if err != nil {
		return nil, fmt.Errorf("listing volumes with one volume key: %w", err)
	}
	return each(rows, toVolume), nil
}

// Secrets implements [kms.Reader].
func (s *Store) Secrets(ctx context.Context, volume string) ([]kms.Secret, error) {
	rows, err := s.rows.SecretsOfVolume(ctx, volume)
	if err != nil {
		return nil, fmt.Errorf("listing secrets: %w", err)
	}
	return each(rows, toSecret), nil
}

// Measurements implements [kms.Reader]. A page is longer than limit where the
// groups of its last digest don't fit.
func (s *Store) Measurements(ctx context.Context, group, after string, limit int) ([]kms.Measurement, error) {
	low, err := hex.DecodeString(after)
	if err != nil {
		return nil, errors.New("listing measurements: what to continue after is not a digest in hex")
	}
	if limit < 1 {
		return nil, nil
	}
	rows, err := s.listMeasurements(ctx, group, low, most(limit))
	if err != nil {
		return nil, fmt.Errorf("listing measurements: %w", err)
	}
	return each(rows, toMeasurement), nil
}

func (s *Store) listMeasurements(ctx context.Context, group string, after []byte, limit int64) ([]sqlitedb.Measurement, error) {
	if group != "" {
		return s.rows.ListMeasurementsOfGroup(ctx, sqlitedb.ListMeasurementsOfGroupParams{
			InGroup: group, Digest: after, Limit: limit,
		})
	}
	return s.rows.ListMeasurements(ctx, sqlitedb.ListMeasurementsParams{After: after, Skip: limit - 1})
}

// ApprovedMeasurements implements [kms.Reader].
func (s *Store) ApprovedMeasurements(ctx context.Context, group string, limit int) ([]kms.Measurement, error) {
	rows, err := s.rows.ApprovedMeasurementsOfGroup(ctx, sqlitedb.ApprovedMeasurementsOfGroupParams{InGroup: group, Limit: most(limit)})
	if err != nil {
		return nil, fmt.Errorf("listing approved measurements: %w", err)
	}
	return each(rows, toMeasurement), nil
}

// FindMeasurements implements [kms.Reader].
func (s *Store) FindMeasurements(ctx context.Context, ref string, limit int) ([]kms.Measurement, error) {
	const digits = 64
	if len(ref) > digits || strings.Trim(ref, "0123456789abcdef") != "" {
		return nil, nil
	}
	low, errLow := hex.DecodeString(ref + strings.Repeat("0", digits-len(ref)))
	high, errHigh := hex.DecodeString(ref + strings.Repeat("f", digits-len(ref)))
	rows, err := s.rows.FindMeasurements(ctx, sqlitedb.FindMeasurementsParams{Low: low, High: high, Most: most(limit)})
	if err := errors.Join(errLow, errHigh, err); err != nil {
		return nil, fmt.Errorf("finding measurements: %w", err)
	}
	return each(rows, toMeasurement), nil
}

// Announcements implements [kms.Reader].
func (s *Store) Announcements(ctx context.Context, machines []kms.Machine) ([]kms.Announcement, error) {
	list := make([]kms.Announcement, 0, len(machines))
	err := s.snapshot(ctx, func(rows *sqlitedb.Queries) error {
		for _, m := range machines {
			row, err := rows.AnnouncementOf(ctx, m.ID)
			if err != nil && !errors.Is(err, sql.ErrNoRows) {
				return err
			}
			a := kms.Announcement{Measurement: kms.MeasurementStatus(row.Measurement)}
			if row.HasPlatform {
				a.Platform = &kms.Platform{
					Machine: m.ID, Digest: m.ExpectedPlatform, Approved: row.Approved,
					Created: toTime(row.Created), Expires: toTime(row.Expires),
				}
			}
			list = append(list, a)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading what machines announced: %w", err)
	}
	return list, nil
}

// Platforms implements [kms.Reader].
func (s *Store) Platforms(ctx context.Context, machine string) ([]kms.Platform, error) {
	rows, err := s.rows.PlatformsOfMachine(ctx, machine)
	if err != nil {
		return nil, fmt.Errorf("listing platform sets: %w", err)
	}
	return each(rows, toPlatform), nil
}

// Counts implements [kms.Reader].
func (s *Store) Counts(ctx context.Context) (kms.Counts, error) {
	c := kms.Counts{
		Machines:     make(map[kms.MachineStatus]int64),
		Measurements: make(map[kms.MeasurementStatus]int64),
		Alarms:       make(map[kms.Alarm]int64),
	}
	err := s.snapshot(ctx, func(rows *sqlitedb.Queries) error {
		counted, err := rows.Counts(ctx)
		if err != nil {
			return err
		}
		for _, row := range counted {
			count(&c, row)
		}
		if c.Entries, err = rows.LastEntry(ctx); err != nil {
			return err
		}
		last, err := rows.LastSecret(ctx)
		if err != nil {
			return err
		}
		c.LastSecret = toTime(last)
		head, err := rows.Head(ctx)
		c.Sequenced = head.Size
		return err
	})
	if err != nil {
		return kms.Counts{}, fmt.Errorf("counting: %w", err)
	}
	return c, nil
}

// count enters one row that the schema's triggers keep.
func count(c *kms.Counts, row sqlitedb.Count) {
	switch {
	case row.N == 0:
	case row.Kind == "machine":
		c.Machines[kms.MachineStatus(row.Status)] = row.N
	case row.Kind == "volume":
		c.Volumes = row.N
	case row.Kind == "secret":
		c.Secrets = row.N
	case row.Kind == "measurement":
		c.Measurements[kms.MeasurementStatus(row.Status)] = row.N
	case row.Kind == "alarm":
		c.Alarms[kms.Alarm(row.Status)] = row.N
	}
}
