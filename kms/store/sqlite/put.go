package sqlite

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"keywright.dev/kms"
	"keywright.dev/kms/store/sqlite/sqlitedb"
)

// putter writes what a decision wants written.
type putter struct {
	rows *sqlitedb.Queries
	ctx  context.Context
	// loaded is the machine's row as the decision found it, or nil.
	loaded *sqlitedb.WholeMachine
}

func (p *putter) put(o kms.Outcome) error {
	if o.Redeem != nil {
		if err := p.redeem(*o.Redeem); err != nil {
			return err
		}
	}
	if err := p.drop(o); err != nil {
		return err
	}
	if err := p.putKeyrings(o); err != nil {
		return err
	}
	if o.Machine != nil {
		if err := p.putMachine(*o.Machine); err != nil {
			return fmt.Errorf("machine: %w", translate(err))
		}
	}
	if err := p.putRows(o); err != nil {
		return err
	}
	if err := p.putWrappers(o); err != nil {
		return err
	}
	if err := p.putRotation(o); err != nil {
		return err
	}
	return p.addEntries(o.Entries)
}

func (p *putter) putWrappers(o kms.Outcome) error {
	for _, w := range o.DropWrappers {
		err := p.rows.DropWrapper(p.ctx, sqlitedb.DropWrapperParams{Keyring: w.Keyring, Version: int64(w.Version), Root: w.Wrapper.Root})
		if err != nil {
			return fmt.Errorf("dropping a wrapper of keyring/%s@%d: %w", w.Keyring, w.Version, translate(err))
		}
	}
	for _, w := range o.Wrappers {
		if err := putWrapper(p.ctx, p.rows, w); err != nil {
			return fmt.Errorf("a wrapper of keyring/%s@%d: %w", w.Keyring, w.Version, translate(err))
		}
	}
	if o.DropLeases {
		return translate(p.rows.NextLeaseEpoch(p.ctx))
	}
	return nil
}

func (p *putter) drop(o kms.Outcome) error {
	if o.DropMachine != "" {
		if err := p.dropMachine(o.DropMachine); err != nil {
			return fmt.Errorf("dropping machine %s: %w", o.DropMachine, translate(err))
		}
	}
	for _, id := range o.DropVolumes {
		if err := p.rows.DropVolume(p.ctx, id); err != nil {
			return fmt.Errorf("dropping volume %s: %w", id, translate(err))
		}
	}
	if err := p.dropSecrets(o.DropSecrets); err != nil {
		return err
	}
	return p.dropAnnounced(o)
}

func (p *putter) dropAnnounced(o kms.Outcome) error {
	for _, digest := range o.DropPlatforms {
		if err := p.rows.DropPlatform(p.ctx, sqlitedb.DropPlatformParams{Machine: o.Machine.ID, Digest: digest[:]}); err != nil {
			return fmt.Errorf("dropping platform %x: %w", digest, translate(err))
		}
	}
	for _, m := range o.DropMeasurements {
		if err := p.rows.DropMeasurement(p.ctx, sqlitedb.DropMeasurementParams{Digest: m.Digest[:], InGroup: m.Group}); err != nil {
			return fmt.Errorf("dropping measurement %x: %w", m.Digest, translate(err))
		}
	}
	return nil
}

// dropMachine deletes what refers to a machine before the machine.
func (p *putter) dropMachine(id string) error {
	for _, drop := range []func(context.Context, string) error{
		p.rows.DropVolumesOfMachine, p.rows.DropPlatformsOfMachine, p.rows.DropMeasurementsSeenOn,
		p.rows.DropMachineState, p.rows.DropMachine,
	} {
		if err := drop(p.ctx, id); err != nil {
			return err
		}
	}
	p.loaded = nil
	return nil
}

func (p *putter) redeem(r kms.Redemption) error {
	err := translate(p.rows.Redeem(p.ctx, sqlitedb.RedeemParams{
		Challenge: r.Challenge[:], KeepUntil: fromTime(r.KeepUntil),
	}))
	if errors.Is(err, kms.ErrExists) {
		return kms.ErrRedeemed
	}
	return err
}

// putMachine writes of the machine what changed: the boot path changes only
// the small row.
func (p *putter) putMachine(m kms.Machine) error {
	row, err := fromMachine(m)
	if err != nil {
		return err
	}
	old := p.loaded
	if old != nil && old.ID == m.ID {
		row.Num = old.Num
	} else {
		old = &sqlitedb.WholeMachine{}
	}
	if put := putMachine(row); row.Num == 0 || !reflect.DeepEqual(put, putMachine(*old)) {
		if row.Num, err = p.rows.PutMachine(p.ctx, put); err != nil {
			return err
		}
	}
	if put := putMachineState(row); !reflect.DeepEqual(put, putMachineState(*old)) {
		return p.rows.PutMachineState(p.ctx, put)
	}
	return nil
}

func (p *putter) putRows(o kms.Outcome) error {
	for _, v := range o.Volumes {
		if err := p.rows.PutVolume(p.ctx, fromVolume(v)); err != nil {
			return fmt.Errorf("volume %s: %w", v.ID, translate(err))
		}
	}
	for _, s := range o.Secrets {
		if err := p.rows.PutSecret(p.ctx, fromSecret(s)); err != nil {
			return fmt.Errorf("%s secret %s@%d: %w", s.Purpose, s.Volume, s.Version, translate(err))
		}
	}
	if err := p.putHeaderCopy(o.HeaderCopy); err != nil {
		return err
	}
	if err := p.putOrders(o); err != nil {
		return err
	}
	if err := p.moveSecrets(o.Moved); err != nil {
		return err
	}
	if err := p.moveServiceKeys(o.ServiceKeys); err != nil {
		return err
	}
	if err := dropServiceKeys(p.rows, o.DropServiceKeys); err != nil {
		return err
	}
	if err := addServiceKeys(p.rows, o.NewServiceKeys); err != nil {
		return err
	}
	for _, m := range o.Measurements {
		if err := p.rows.PutMeasurement(p.ctx, fromMeasurement(m)); err != nil {
			return fmt.Errorf("measurement %x: %w", m.Digest, translate(err))
		}
	}
	for _, f := range o.Platforms {
		if err := p.rows.PutPlatform(p.ctx, fromPlatform(f)); err != nil {
			return fmt.Errorf("platform %x: %w", f.Digest, translate(err))
		}
	}
	if err := p.putUses(o.Uses); err != nil {
		return err
	}
	return p.dismissUses(o.Dismissed)
}

func (p *putter) addEntries(entries []kms.LogEntry) error {
	for _, e := range entries {
		if err := p.rows.AddEntry(p.ctx, sqlitedb.AddEntryParams{
			Signed: e.Signed.Marshal(), Machine: e.Machine, Action: e.Action, Time: fromTime(e.Time),
		}); err != nil {
			return fmt.Errorf("audit entry: %w", translate(err))
		}
	}
	return nil
}
