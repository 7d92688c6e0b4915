package kms

import (
	"context"
	"errors"
	"fmt"

	"keywright.dev/kms/claims"
)

// errNearest rolls back a decision that wants to say what differed and has not
// looked yet.
var errNearest = errors.New("the nearest approved claims are wanted")

// loadNearest finds what differs least from this boot among what is approved: of
// the measurements of the machine's group, or of the machine's platform sets. It
// only explains: the decision is repeated.
func (r *releasing) loadNearest(ctx context.Context) error {
	machine, err := r.service.Store.Machine(ctx, r.attested.Machine)
	if err != nil {
		return fmt.Errorf("explaining a refusal: %w", err)
	}
	if r.wantsNearest == ReasonPlatform {
		err = r.nearestPlatform(ctx, machine.ID)
	} else {
		err = r.nearestMeasurement(ctx, machine.Group)
	}
	if err != nil {
		return fmt.Errorf("explaining a refusal: %w", err)
	}
	r.looked = true
	return nil
}

func (r *releasing) nearestMeasurement(ctx context.Context, group string) error {
	nearest, differences, err := r.service.nearest(ctx, group, r.boot.Measurement)
	if err == nil && nearest != nil {
		r.nearestOf = hexDigest(nearest.Digest)
		r.nearest = readable(differences, nearest.CommandLine, r.commandLine())
	}
	return err
}

func (r *releasing) nearestPlatform(ctx context.Context, machine string) error {
	rows, err := r.service.Store.Platforms(ctx, machine)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if !row.Approved {
			continue
		}
		approved, err := claims.Parse(row.Claims)
		if err != nil {
			return fmt.Errorf("reading a platform set of machine/%s: %w", machine, err)
		}
		if differences := claims.Diff(approved, r.boot.Platform); r.nearestOf == "" || len(differences) < len(r.nearest) {
			r.nearestOf, r.nearest = hexDigest(row.Digest), differences
		}
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
