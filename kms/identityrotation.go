package kms

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"keywright.dev/kms/audit"
	"keywright.dev/kms/exchange"
)

// The actions of a rotation of the service identity key.
const (
	ActionRotateIdentity = "identity.rotate"
	ActionRetireIdentity = "identity.retire"
)

const (
	// MaxLeftBehind bounds the machines that a retirement can leave behind.
	MaxLeftBehind = 10_000
	// listedLacking bounds the machines that a census lists and an entry names.
	listedLacking = 20
)

// Lacking asks which machines do not pin a service identity key. Those that are
// revoked do not count.
type Lacking struct {
	Key   [32]byte // fingerprint
	Limit int
}

// PinCount counts machines that pin the same keys.
type PinCount struct {
	Pins     [][32]byte
	Machines int64
}

// IdentityKey is a service identity key that the service answers with.
type IdentityKey struct {
	Fingerprint string
	Created     time.Time
	// Pinned counts the machines that pin it.
	Pinned int64
}

// IdentityCensus tells which machines know which service identity keys, by their
// last boots. Revoked machines are not in it.
type IdentityCensus struct {
	Keys     []IdentityKey // the current one first
	Machines int64
	// Lacking do not pin the current key: once the one before is retired, no boot of
	// theirs gets keys. First are ids of the first of them.
	Lacking int64
	First   []string
	// Others pin the current key and another one: whoever has that one can still
	// pass for this service with them.
	Others int64
}

// IdentityCensus counts the machines.
func (s *Service) IdentityCensus(ctx context.Context) (*IdentityCensus, error) {
	rows, err := s.Keys.serviceKeys(ctx, ServiceKeyIdentity)
	if err != nil {
		return nil, err
	}
	current := s.ServiceKey()
	counts, err := s.Store.PinCounts(ctx)
	if err != nil {
		return nil, err
	}
	census := &IdentityCensus{}
	for _, row := range rows {
		census.Keys = append(census.Keys, IdentityKey{Fingerprint: row.ID, Created: row.Created})
	}
	for _, c := range counts {
		census.add(c, current)
	}
	census.First, err = s.Store.MachinesLacking(ctx, Lacking{Key: current, Limit: listedLacking}, "")
	return census, err
}

func (c *IdentityCensus) add(count PinCount, current [32]byte) {
	c.Machines += count.Machines
	for i := range c.Keys {
		if slices.ContainsFunc(count.Pins, func(p [32]byte) bool { return exchange.FormatFingerprint(p) == c.Keys[i].Fingerprint }) {
			c.Keys[i].Pinned += count.Machines
		}
	}
	switch {
	case !slices.Contains(count.Pins, current):
		c.Lacking += count.Machines
	case len(count.Pins) > 1:
		c.Others += count.Machines
	}
}

// RotateIdentity makes another service identity key. The service answers with the
// one before as well, to whoever knows that one alone, until it is retired.
func (s *Service) RotateIdentity(ctx context.Context, by Operator) (*IdentityCensus, error) {
	id, public, private, err := s.Identity.Make()
	if err != nil {
		return nil, fmt.Errorf("making a service identity key: %w", err)
	}
	defer private.Wipe()
	err = s.change(ctx, by, Key{ServiceKeys: true}, func(state State) (Outcome, error) {
		held := identityRows(state.ServiceKeys)
		switch {
		case len(held) == 0:
			return Outcome{}, fmt.Errorf("the store has no service identity key: %w", ErrNotFound)
		case len(held) > 1:
			return Outcome{}, disallow("the service identity key before, %s, is not retired: `keywright server identity census` says which machines need it", held[1].ID)
		}
		row := ServiceKey{Kind: ServiceKeyIdentity, ID: id, Public: public, Created: s.Clock()}
		var err error
		if row.Wrapped, row.KeyringVersion, err = s.Keys.Wrap(serviceKeyContext(row), private); err != nil {
			return Outcome{}, err
		}
		d := by.draft(ActionRotateIdentity, "", "service-key/"+id)
		d.fact("service_key", held[0].ID, id)
		return s.entered(Outcome{NewServiceKeys: []ServiceKey{row}}, d, audit.Done, nil)
	})
	return s.reidentified(ctx, by, err, "rotating the service identity key")
}

// RetireIdentity deletes the service identity key before the current one. It is
// refused while more machines than are left behind lack the current key: their boots
// would get no keys any more. Those that are excused, by id, do not count.
func (s *Service) RetireIdentity(ctx context.Context, by Operator, key string, leaveBehind int, excused []string) (*IdentityCensus, error) {
	if leaveBehind < 0 || leaveBehind > MaxLeftBehind {
		return nil, usage("at most %d machines are left behind", MaxLeftBehind)
	}
	lacking := Lacking{Key: s.ServiceKey(), Limit: leaveBehind + len(excused) + listedLacking + 1}
	err := s.change(ctx, by, Key{ServiceKeys: true, Lacking: &lacking}, func(state State) (Outcome, error) {
		former, err := formerOf(identityRows(state.ServiceKeys), lacking.Key, key)
		if err != nil {
			return Outcome{}, err
		}
		left := slices.DeleteFunc(slices.Clone(state.Lacking), func(id string) bool { return slices.Contains(excused, id) })
		if len(left) > leaveBehind {
			return Outcome{}, disallow("machines do not know the key that took its place, and no boot of theirs would get keys: %s. "+
				"Revoke or excuse those that are gone, or leave them behind with --leave-behind", manyOf(left))
		}
		d := by.draft(ActionRetireIdentity, "", "service-key/"+former.ID)
		d.fact("service_key", former.ID, exchange.FormatFingerprint(lacking.Key))
		d.fact("left_behind", "", fmt.Sprint(len(state.Lacking)))
		for _, id := range state.Lacking[:min(len(state.Lacking), listedLacking)] {
			d.fact("left_behind.machine", "", id)
		}
		return s.entered(Outcome{DropServiceKeys: []ServiceKey{*former}}, d, audit.Done, nil)
	})
	return s.reidentified(ctx, by, err, "retiring a service identity key")
}

// reidentified holds what a change made of the keys.
func (s *Service) reidentified(ctx context.Context, by Operator, err error, doing string) (*IdentityCensus, error) {
	if err == nil && !by.DryRun {
		err = s.Identities.load(ctx, s.Keys, s.Identity)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	return s.IdentityCensus(ctx)
}

// identityRows returns the service identity keys, the current one first.
func identityRows(keys []ServiceKey) []ServiceKey {
	rows := slices.DeleteFunc(slices.Clone(keys), func(k ServiceKey) bool { return k.Kind != ServiceKeyIdentity })
	sortNewest(rows)
	return rows
}

func formerOf(held []ServiceKey, current [32]byte, ref string) (*ServiceKey, error) {
	var found []ServiceKey
	for _, k := range held {
		if ref != "" && (strings.HasPrefix(k.ID, ref) || strings.HasPrefix(k.ID, "sha256:"+ref)) {
			found = append(found, k)
		}
	}
	switch {
	case len(held) > 0 && held[0].ID != exchange.FormatFingerprint(current):
		return nil, disallow("another key became the current one meanwhile")
	case len(found) != 1:
		return nil, usage("no service identity key, or more than one, begins so: `keywright server identity census` lists them")
	case found[0].ID == held[0].ID:
		return nil, disallow("it is the current one: `keywright server identity rotate` makes another, which machines learn of first")
	default:
		return &found[0], nil
	}
}

// manyOf lists machines, as many as fit.
func manyOf(ids []string) string {
	text := "machine/" + strings.Join(ids[:min(len(ids), listedLacking)], ", machine/")
	if len(ids) > listedLacking {
		text += " and more"
	}
	return text
}
