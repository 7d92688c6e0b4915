package kms

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"keywright.dev/kms/attest"
	"keywright.dev/kms/claims"
)

// Findings returns the claims of a measurement that a person should look at
// before approving it; see [attest.Boot.Findings].
func (m *Measurement) Findings() ([]claims.Claim, error) {
	set, err := claims.Parse(m.Claims)
	if err != nil {
		return nil, fmt.Errorf("reading measurement/%s: %w", hexDigest(m.Digest), err)
	}
	return (&attest.Boot{Measurement: set}).Findings(), nil
}

// Findings returns the same of what a machine announced: of its next boot, and of
// its platform.
func (s *Service) Findings(ctx context.Context, m *Machine) ([]claims.Claim, error) {
	var findings []claims.Claim
	expected, err := s.FindMeasurement(ctx, hexDigest(m.Expected), m.Group)
	if err == nil {
		findings, err = expected.Findings()
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	platforms, err := s.Store.Platforms(ctx, m.ID)
	if err != nil {
		return nil, fmt.Errorf("reading the platforms of machine/%s: %w", m.ID, err)
	}
	i := slices.IndexFunc(platforms, func(p Platform) bool { return p.Digest == m.ExpectedPlatform })
	if i < 0 {
		return findings, nil
	}
	set, err := claims.Parse(platforms[i].Claims)
	if err != nil {
		return nil, fmt.Errorf("reading a platform of machine/%s: %w", m.ID, err)
	}
	return append(findings, (&attest.Boot{Platform: set}).Findings()...), nil
}
