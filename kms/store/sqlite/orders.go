package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"keywright.dev/kms"
	"keywright.dev/kms/store/sqlite/sqlitedb"
)

// Orders implements [kms.Reader].
func (s *Store) Orders(ctx context.Context, after string, limit int) ([]kms.Order, error) {
	found, err := s.rows.Orders(ctx, sqlitedb.OrdersParams{After: after, Most: most(limit)})
	if err != nil {
		return nil, fmt.Errorf("reading orders: %w", err)
	}
	return toOrders(found)
}

// OrdersOf implements [kms.Reader].
func (s *Store) OrdersOf(ctx context.Context, machine string) ([]kms.Order, error) {
	found, err := s.rows.OrdersOfMachine(ctx, machine)
	if err != nil {
		return nil, fmt.Errorf("reading the orders of a machine: %w", err)
	}
	return toOrders(found)
}

func (l *loader) loadOrders(machine string) error {
	found, err := l.rows.OrdersOfMachine(l.ctx, machine)
	if err == nil {
		l.state.Orders, err = toOrders(found)
	}
	return err
}

func (p *putter) putOrders(o kms.Outcome) error {
	for _, volume := range o.DropOrders {
		if err := p.rows.DropOrder(p.ctx, volume); err != nil {
			return fmt.Errorf("dropping the order of volume %s: %w", volume, translate(err))
		}
	}
	for _, order := range o.Orders {
		row, err := fromOrder(order)
		if err == nil {
			err = p.rows.PutOrder(p.ctx, row)
		}
		if err != nil {
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

func toOrders(rows []sqlitedb.Order) (orders []kms.Order, err error) {
	for _, r := range rows {
		order, err := toOrder(r)
		if err != nil {
			return nil, err
		}
		orders = append(orders, order)
	}
	return orders, nil
}

func toOrder(r sqlitedb.Order) (kms.Order, error) {
	o := kms.Order{
		Volume: r.Volume, Machine: r.Machine, Kind: kms.OrderKind(r.Kind), Status: kms.OrderStatus(r.Status),
		AtBoot: r.AtBoot, From: uint32(r.Opens), Version: uint32(r.Version), Withdrawn: uint32(r.Withdrawn),
		Reason: r.Reason, Created: toTime(r.Created), By: r.CreatedBy,
		Deliveries: int(r.Deliveries), Delivered: toTime(r.Delivered),
		Fault: r.Fault, Faults: int(r.Faults), Reported: toTime(r.Reported),
		HeaderKept: toTime(r.Header),
		Agreed:     r.Agreed, Becomes: bytes.Clone(r.Becomes),
		Progress: kms.Progress{
			Done: uint64(r.BytesDone), Total: uint64(r.BytesAll), Rate: uint64(r.Rate),
			Left: time.Duration(r.TimeLeft) * time.Second, At: toTime(r.Progressed),
		},
	}
	if r.Lost == "" {
		return o, nil
	}
	if err := json.Unmarshal([]byte(r.Lost), &o.Lost); err != nil {
		return kms.Order{}, fmt.Errorf("reading the order of volume %s: %w", r.Volume, err)
	}
	return o, nil
}

func fromOrder(o kms.Order) (sqlitedb.PutOrderParams, error) {
	var lost []byte
	if len(o.Lost) > 0 {
		var err error
		if lost, err = json.Marshal(o.Lost); err != nil {
			return sqlitedb.PutOrderParams{}, err
		}
	}
	return sqlitedb.PutOrderParams{
		Volume: o.Volume, Machine: o.Machine, Kind: string(o.Kind), Status: string(o.Status), AtBoot: o.AtBoot, Opens: int64(o.From), Version: int64(o.Version), Withdrawn: int64(o.Withdrawn),
		Reason: o.Reason, Created: fromTime(o.Created), CreatedBy: o.By,
		Deliveries: int64(o.Deliveries), Delivered: fromTime(o.Delivered),
		Fault: o.Fault, Faults: int64(o.Faults), Reported: fromTime(o.Reported),
		Header: fromTime(o.HeaderKept),
		Lost:   string(lost), Agreed: o.Agreed, Becomes: blob(o.Becomes),
		BytesDone: int64(o.Progress.Done), BytesAll: int64(o.Progress.Total), Rate: int64(o.Progress.Rate),
		TimeLeft: int64(o.Progress.Left / time.Second), Progressed: fromTime(o.Progress.At),
	}, nil
}
