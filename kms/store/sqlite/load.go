package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"keywright.dev/kms"
	"keywright.dev/kms/store/sqlite/sqlitedb"
)

// loader reads the rows that a key names.
type loader struct {
	rows *sqlitedb.Queries
	ctx  context.Context

	state kms.State
	// machine is the row that state.Machine was made of, shared with nobody.
	machine *sqlitedb.WholeMachine
}

func (l *loader) load(key kms.Key) error {
	if key.Machine != "" {
		if err := l.loadMachine(key.Machine); err != nil {
			return err
		}
	}
	return errors.Join(
		l.loadHolders(key),
		l.loadRedeemed(key),
		l.loadMeasurements(key),
		l.loadPlatform(key),
	)
}

func (l *loader) loadMachine(id string) error {
	row, err := l.rows.LoadMachine(l.ctx, id)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	} else if err != nil {
		return err
	}
	machine, err := toMachine(row.WholeMachine)
	if err != nil {
		return err
	}
	volumes, err := l.rows.VolumesOfMachine(l.ctx, id)
	if err != nil {
		return err
	}
	secrets, err := l.rows.SecretsOfMachine(l.ctx, id)
	if err != nil {
		return err
	}
	l.machine = &row.WholeMachine
	l.state.Machine = &machine
	l.state.Platforms, l.state.SeenMeasurements = int(row.Platforms), int(row.Seen)
	l.state.Volumes, l.state.Secrets = each(volumes, toVolume), each(secrets, toSecret)
	return nil
}

func (l *loader) loadHolders(key kms.Key) (err error) {
	if len(key.AKName) > 0 {
		l.state.AKHolder, err = l.rows.MachineByAKName(l.ctx, key.AKName)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
	}
	if key.Name != "" {
		l.state.NameHolder, err = l.rows.MachineByName(l.ctx, key.Name)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
	}
	return nil
}

func (l *loader) loadRedeemed(key kms.Key) error {
	if key.Challenge == nil {
		return nil
	}
	n, err := l.rows.Redeemed(l.ctx, key.Challenge[:])
	l.state.Redeemed = n > 0
	return err
}

func (l *loader) loadMeasurements(key kms.Key) error {
	group := key.Group
	if group == "" && l.state.Machine != nil {
		group = l.state.Machine.Group
	}
	for _, digest := range key.Measurements {
		row, err := l.rows.GetMeasurement(l.ctx, sqlitedb.GetMeasurementParams{Digest: digest[:], InGroup: group})
		if errors.Is(err, sql.ErrNoRows) {
			continue
		} else if err != nil {
			return err
		}
		l.state.Measurements = append(l.state.Measurements, toMeasurement(row))
	}
	return nil
}

func (l *loader) loadPlatform(key kms.Key) error {
	if key.Platform == nil || key.Machine == "" {
		return nil
	}
	row, err := l.rows.GetPlatform(l.ctx, sqlitedb.GetPlatformParams{Machine: key.Machine, Digest: key.Platform[:]})
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	} else if err != nil {
		return err
	}
	platform := toPlatform(row)
	l.state.Platform = &platform
	return nil
}
