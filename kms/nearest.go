package kms

import (
	"context"
	"errors"
	"fmt"

	"keywright.dev/kms/claims"
)

// errNearest rolls back a decision that wants to say what differed and has not
// looked yet.
var errNearest = errors.New("the nearest approved measurement is wanted")

// loadNearest finds the approved measurement of the machine's group that
// differs least from this boot's. It only explains: the decision is repeated.
func (r *releasing) loadNearest(ctx context.Context) error {
	machine, err := r.service.Store.Machine(ctx, r.attested.Machine)
	if err != nil {
		return fmt.Errorf("explaining a refusal: %w", err)
	}
	digest, differences, err := r.service.nearest(ctx, machine.Group, r.boot.Measurement)
	if err != nil {
		return fmt.Errorf("explaining a refusal: %w", err)
	}
	r.nearestOf, r.nearest, r.looked = digest, differences, true
	return nil
}

// nearest returns the digest of the approved measurement that differs least
// from set, and the differences; nothing where the group has none.
func (s *Service) nearest(ctx context.Context, group string, set claims.Set) (string, []claims.Difference, error) {
	rows, err := s.Store.Measurements(ctx, group, "", maxNearest)
	if err != nil {
		return "", nil, err
	}
	var digest string
	var best []claims.Difference
	for _, row := range rows {
		if row.Status != MeasurementApproved {
			continue
		}
		approved, err := claims.Parse(row.Claims)
		if err != nil {
			return "", nil, fmt.Errorf("reading measurement/%s: %w", hexDigest(row.Digest), err)
		}
		differences := claims.Diff(approved, set)
		if digest == "" || len(differences) < len(best) {
			digest, best = hexDigest(row.Digest), differences
		}
	}
	return digest, best, nil
}
