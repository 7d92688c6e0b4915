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
	nearest, differences, err := r.service.nearest(ctx, machine.Group, r.boot.Measurement)
	if err != nil {
		return fmt.Errorf("explaining a refusal: %w", err)
	}
	r.looked = true
	if nearest != nil {
		r.nearestOf = hexDigest(nearest.Digest)
		r.nearest = readable(differences, nearest.CommandLine, r.commandLine())
	}
	return nil
}

// nearest returns of the measurements approved last the one that differs least
// from set, and the differences; nil where the group has none.
func (s *Service) nearest(ctx context.Context, group string, set claims.Set) (*Measurement, []claims.Difference, error) {
	rows, err := s.Store.ApprovedMeasurements(ctx, group, maxNearest)
	if err != nil {
		return nil, nil, err
	}
	var nearest *Measurement
	var best []claims.Difference
	for i, row := range rows {
		approved, err := claims.Parse(row.Claims)
		if err != nil {
			return nil, nil, fmt.Errorf("reading measurement/%s: %w", hexDigest(row.Digest), err)
		}
		differences := claims.Diff(approved, set)
		if nearest == nil || len(differences) < len(best) {
			nearest, best = &rows[i], differences
		}
	}
	return nearest, best, nil
}
