package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"keywright.dev/kms"
	"keywright.dev/kms/store/sqlite/sqlitedb"
)

// Orders implements [kms.Reader].
func (s *Store) Orders(ctx context.Context, after string, limit int) ([]kms.Order, error) {
	found, err := s.rows.Orders(ctx, sqlitedb.OrdersParams{After: after, Most: most(limit)})
	if err != nil {
		return nil, fmt.Errorf("reading orders: %w", err)
	}
	return each(found, toOrder), nil
}

// OrdersOf implements [kms.Reader].
func (s *Store) OrdersOf(ctx context.Context, machine string) ([]kms.Order, error) {
	found, err := s.rows.OrdersOfMachine(ctx, machine)
	if err != nil {
		return nil, fmt.Errorf("reading the orders of a machine: %w", err)
	}
	return each(found, toOrder), nil
}

func (l *loader) loadOrders(machine string) error {
	found, err := l.rows.OrdersOfMachine(l.ctx, machine)
	l.state.Orders = each(found, toOrder)
	return err
}

func (p *putter) putOrders(o kms.Outcome) error {
	for _, volume := range o.DropOrders {
		if err := p.rows.DropOrder(p.ctx, volume); err != nil {
			return fmt.Errorf("dropping the order of volume %s: %w", volume, translate(err))
		}
	}
	for _, order := range o.Orders {
		if err := p.rows.PutOrder(p.ctx, fromOrder(order)); err != nil {
			return fmt.Errorf("the order of volume %s: %w", order.Volume, translate(err))
		}
	}
	return nil
}

// HeaderCopy implements [kms.Reader].
func (s *Store) HeaderCopy(ctx context.Context, volume string) (*kms.HeaderCopy, error) {
	r, err := s.rows.HeaderCopyOf(ctx, volume)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, kms.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("reading the copy of the header of volume %s: %w", volume, translate(err))
	}
	return &kms.HeaderCopy{Volume: r.Volume, Version: uint32(r.Version), Created: toTime(r.Created), Sealed: r.Sealed}, nil
}

func (p *putter) putHeaderCopy(c *kms.HeaderCopy) error {
	if c == nil {
		return nil
	}
	err := p.rows.PutHeaderCopy(p.ctx, sqlitedb.PutHeaderCopyParams{
		Volume: c.Volume, Purpose: kms.PurposeHeader, Version: int64(c.Version), Created: fromTime(c.Created), Sealed: c.Sealed,
	})
	if err != nil {
		return fmt.Errorf("the copy of the header of volume %s: %w", c.Volume, translate(err))
	}
	return nil
}

func (p *putter) dropSecrets(refs []kms.SecretRef) error {
	for _, ref := range refs {
		err := p.rows.DropSecret(p.ctx, sqlitedb.DropSecretParams{Volume: ref.Volume, Purpose: ref.Purpose, Version: int64(ref.Version)})
		if err != nil {
			return fmt.Errorf("dropping the %s secret %s@%d: %w", ref.Purpose, ref.Volume, ref.Version, translate(err))
		}
	}
	return nil
}

func toOrder(r sqlitedb.Order) kms.Order {
	return kms.Order{
		Volume: r.Volume, Machine: r.Machine, Status: kms.OrderStatus(r.Status), AtBoot: r.AtBoot, From: uint32(r.Opens), Version: uint32(r.Version),
		Reason: r.Reason, Created: toTime(r.Created), By: r.CreatedBy,
		Deliveries: int(r.Deliveries), Delivered: toTime(r.Delivered),
		Fault: r.Fault, Faults: int(r.Faults), Reported: toTime(r.Reported),
		HeaderKept: toTime(r.Header),
	}
}

func fromOrder(o kms.Order) sqlitedb.PutOrderParams {
	return sqlitedb.PutOrderParams{
		Volume: o.Volume, Machine: o.Machine, Status: string(o.Status), AtBoot: o.AtBoot, Opens: int64(o.From), Version: int64(o.Version),
		Reason: o.Reason, Created: fromTime(o.Created), CreatedBy: o.By,
		Deliveries: int64(o.Deliveries), Delivered: fromTime(o.Delivered),
		Fault: o.Fault, Faults: int64(o.Faults), Reported: fromTime(o.Reported),
		Header: fromTime(o.HeaderKept),
	}
}
