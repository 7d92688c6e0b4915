package sqlite

import (
	"cmp"
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
	if err := l.loadMachine(key); err != nil {
		return err
	}
	if l.machine == nil {
		if err := errors.Join(l.loadEpoch(), l.loadRedeemed(key), l.loadMeasurements(key.Group, key.Measurements)); err != nil {
			return err
		}
	}
	if err := errors.Join(l.loadSameKey(key), l.loadKeyrings(key)); err != nil {
		return err
	}
	if err := l.loadAllKeyrings(key); err != nil {
		return err
	}
	if err := l.loadRotation(key); err != nil {
		return err
	}
	if err := l.loadHolding(key); err != nil {
		return err
	}
	if err := l.loadLacking(key); err != nil {
		return err
	}
	return l.loadHolders(key)
}

// loadMachine loads what there is if the machine exists: most of it, and all
// that a boot asks for, in two statements.
func (l *loader) loadMachine(key kms.Key) error {
	if key.Machine == "" {
		return nil
	}
	row, err := l.rows.LoadMachine(l.ctx, loadParams(key))
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	} else if err != nil {
		return err
	}
	machine, err := toMachine(row.WholeMachine)
	if err != nil {
		return err
	}
	l.machine = &row.WholeMachine
	l.state.Machine = &machine
	l.state.SeenPlatforms, l.state.SeenMeasurements = int(row.Platforms), int(row.Seen)
	l.state.Redeemed, l.state.LeaseEpoch = row.Redeemed > 0, uint64(row.LeaseEpoch)
	if row.HasPlatform {
		l.state.Platform = &kms.Platform{
			Machine: machine.ID, Digest: *key.Platform, Claims: row.PClaims, Approved: row.PApproved, Created: toTime(row.PCreated),
			Expires: toTime(row.PExpires),
		}
	}
	if row.HasMeasurement {
		l.state.Measurements = append(l.state.Measurements, joinedMeasurement(key.Measurements[0], row))
	}
	if len(key.Measurements) > 1 {
		if err := l.loadMeasurements(cmp.Or(key.Group, machine.Group), key.Measurements[1:]); err != nil {
			return err
		}
	}
	if key.Announced {
		if err := l.loadAnnounced(machine.ID); err != nil {
			return err
		}
	}
	if row.Orders > 0 {
		if err := l.loadOrders(machine.ID); err != nil {
			return err
		}
	}
	return l.loadVolumes(machine.ID, key.Recovery)
}

// loadAnnounced loads what a machine's announcements left.
func (l *loader) loadAnnounced(machine string) error {
	platforms, err := l.rows.PlatformsOfMachine(l.ctx, machine)
	if err != nil {
		return err
	}
	predicted, err := l.rows.PredictedFor(l.ctx, machine)
	if err != nil {
		return err
	}
	l.state.Platforms, l.state.Predicted = each(platforms, toPlatform), each(predicted, toMeasurement)
	return nil
}

// loadParams joins to the machine's row what a boot names: one of each.
func loadParams(key kms.Key) sqlitedb.LoadMachineParams {
	p := sqlitedb.LoadMachineParams{ID: key.Machine, InGroup: sql.NullString{String: key.Group, Valid: key.Group != ""}}
	if key.Challenge != nil {
		p.Challenge = key.Challenge[:]
	}
	if key.Platform != nil {
		p.Platform = key.Platform[:]
	}
	if len(key.Measurements) > 0 {
		p.Measurement = key.Measurements[0][:]
	}
	return p
}

func joinedMeasurement(digest [32]byte, row sqlitedb.LoadMachineRow) kms.Measurement {
	return toMeasurement(sqlitedb.Measurement{
		Digest: digest[:], InGroup: row.XGroup, Claims: row.XClaims, Cmdline: row.XCmdline,
		Status: row.XStatus, Source: row.XSource, Machine: row.XMachine,
		Created: row.XCreated, Approved: row.XApproved, ApprovedBy: row.XApprovedBy,
	})
}

// loadVolumes loads the volumes with what opens their keyslots at boot, and with
// the recovery keys where they are asked for.
func (l *loader) loadVolumes(machine string, recovery bool) error {
	if !recovery {
		return l.loadForBoot(machine)
	}
	rows, err := l.rows.VolumesAndSecrets(l.ctx, machine)
	if err != nil {
		return err
	}
	for _, r := range rows {
		l.addVolume(r.Volume, sqlitedb.Secret{
			Volume: r.Volume.ID, Version: r.Version, Purpose: r.Purpose, Status: r.Status, Keyring: r.Keyring,
			KeyringVersion: r.KeyringVersion, Wrapped: r.Wrapped, Created: r.Created, Replaced: r.Replaced, AtBoot: r.AtBoot,
			Disclosed: r.Disclosed, AgeCopy: r.AgeCopy,
		})
	}
	return nil
}

func (l *loader) loadForBoot(machine string) error {
	rows, err := l.rows.VolumesAndSecretsFor(l.ctx, sqlitedb.VolumesAndSecretsForParams{
		Purpose: kms.PurposeKeyslot, Other: kms.PurposeHeader, Machine: machine,
	})
	if err != nil {
		return err
	}
	for _, r := range rows {
		l.addVolume(r.Volume, sqlitedb.Secret{
			Volume: r.Volume.ID, Version: r.Version, Purpose: r.Purpose, Status: r.Status, Keyring: r.Keyring,
			KeyringVersion: r.KeyringVersion, Wrapped: r.Wrapped, Created: r.Created, Replaced: r.Replaced, AtBoot: r.AtBoot,
		})
	}
	return nil
}

func (l *loader) loadSameKey(key kms.Key) error {
	for _, digest := range key.VolumeKeys {
		rows, err := l.rows.VolumesWithKey(l.ctx, sqlitedb.VolumesWithKeyParams{
			VolumeKeyDigest: digest, Machine: key.Machine, Limit: kms.MaxSameKey,
		})
		if err != nil {
			return err
		}
		l.state.SameKey = append(l.state.SameKey, each(rows, toVolume)...)
	}
	return nil
}

// addVolume adds what one row holds: rows of one volume stand together, and one
// without a secret has version 0.
func (l *loader) addVolume(volume sqlitedb.Volume, secret sqlitedb.Secret) {
	known := l.state.Volumes
	if len(known) == 0 || known[len(known)-1].ID != volume.ID {
		l.state.Volumes = append(known, toVolume(volume))
	}
	if secret.Version > 0 {
		l.state.Secrets = append(l.state.Secrets, toSecret(secret))
	}
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

func (l *loader) loadEpoch() error {
	epoch, err := l.rows.LeaseEpoch(l.ctx)
	l.state.LeaseEpoch = uint64(epoch)
	return err
}

func (l *loader) loadAllKeyrings(key kms.Key) (err error) {
	if key.Keyrings {
		l.state.Keyrings, err = keyrings(l.ctx, l.rows)
	}
	return err
}

func (l *loader) loadRedeemed(key kms.Key) error {
	if key.Challenge == nil {
		return nil
	}
	n, err := l.rows.Redeemed(l.ctx, key.Challenge[:])
	l.state.Redeemed = n > 0
	return err
}

func (l *loader) loadMeasurements(group string, digests [][32]byte) error {
	for _, digest := range digests {
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
