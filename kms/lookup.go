package kms

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
)

// FindMachine finds a machine by its name, its proposed name while it has none,
// its id, or the beginning of its id; "machine/" may stand in front. One that
// does not exist is [ErrNotFound]; an ambiguous reference is a [UsageError].
func (s *Service) FindMachine(ctx context.Context, ref string) (*Machine, error) {
	name := trimKind("machine", ref)
	if name == "" {
		return nil, usage("a machine is named by its name or its id")
	}
	found, err := s.Store.FindMachines(ctx, name, 3)
	if err != nil {
		return nil, fmt.Errorf("finding a machine: %w", err)
	}
	for i := range found {
		if found[i].Name == name || found[i].ID == name {
			return &found[i], nil
		}
	}
	switch {
	case len(found) == 0:
		return nil, fmt.Errorf("machine/%.128s: %w", name, ErrNotFound)
	case len(found) > 1:
		return nil, usage("it names several machines: give the id, of which `keywright machine list` shows all")
	case strings.HasPrefix(found[0].ID, name) && len(name) < minIDPrefix:
		return nil, usage("give at least %d characters of an id", minIDPrefix)
	default:
		return &found[0], nil
	}
}

// maxFound bounds the groups in which one digest is looked for.
const maxFound = 1000

// FindMeasurement finds a measurement by its digest or the beginning of it;
// "measurement/" may stand in front. With an empty group the measurement must
// be known in one group only.
func (s *Service) FindMeasurement(ctx context.Context, ref, group string) (*Measurement, error) {
	digest := trimKind("measurement", ref)
	if len(digest) < minIDPrefix || len(digest) > 64 || strings.Trim(digest, "0123456789abcdef") != "" {
		return nil, usage("a measurement is named by its digest or at least %d characters of it, in lower-case hex", minIDPrefix)
	}
	found, err := s.Store.FindMeasurements(ctx, digest, maxFound)
	if err != nil {
		return nil, fmt.Errorf("finding a measurement: %w", err)
	}
	var match *Measurement
	for i := range found {
		switch {
		case group != "" && found[i].Group != group:
		case match == nil:
			match = &found[i]
		case match.Digest != found[i].Digest:
			return nil, usageDigest()
		default:
			return nil, usage("the measurement is known in several groups: name one with --group")
		}
	}
	if match == nil {
		return nil, fmt.Errorf("measurement/%s: %w", digest, ErrNotFound)
	}
	return match, nil
}

// parseDigest reads 64 hex digits, with or without "sha256:" in front.
func parseDigest(text string) (d [32]byte, ok bool) {
	raw, err := hex.DecodeString(strings.TrimPrefix(strings.ToLower(strings.TrimSpace(text)), "sha256:"))
	if err != nil || len(raw) != len(d) {
		return d, false
	}
	return [32]byte(raw), true
}
