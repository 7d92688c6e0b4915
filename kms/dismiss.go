package kms

import (
	"context"
	"fmt"

	"keywright.dev/kms/audit"
)

// ActionDismissMeasurement is the action of dismissing what waits for approval.
const ActionDismissMeasurement = "measurement.dismiss"

// DismissMeasurement forgets a measurement that waits for approval, so that it
// counts no more among those that its machine may have waiting. It denies
// nothing for the time to come: a machine that boots it is refused, and it waits
// again.
func (s *Service) DismissMeasurement(ctx context.Context, by Operator, ref, group string) (*Measurement, error) {
	found, err := s.FindMeasurement(ctx, ref, group)
	if err != nil {
		return nil, err
	}
	key := Key{Machine: found.Machine, Measurements: [][32]byte{found.Digest}, Group: found.Group}
	err = s.change(ctx, by, key, func(state State) (Outcome, error) {
		row := findMeasurement(state.Measurements, found.Digest)
		switch {
		case row == nil:
			return Outcome{}, ErrNotFound
		case row.Status != MeasurementSeen:
			return Outcome{}, disallow("it is %s: only what waits for approval can be dismissed", row.Status)
		case state.Machine != nil && state.Machine.Status == MachinePending && state.Machine.Expected == found.Digest:
			return Outcome{}, disallow("machine/%s was enrolled with it and waits for approval: revoke the machine", state.Machine.ID)
		}
		d := by.draft(ActionDismissMeasurement, found.Machine, "measurement/"+hexDigest(found.Digest))
		d.fact("group", found.Group, "")
		d.fact("status", string(row.Status), "")
		return s.entered(Outcome{DropMeasurements: []Measurement{*row}}, d, audit.Done, nil)
	})
	if err != nil {
		return nil, fmt.Errorf("dismissing measurement/%s: %w", hexDigest(found.Digest), err)
	}
	return found, nil
}
