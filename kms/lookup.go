package kms

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// maxMatches bounds the machines that one reference is looked for among: revoked
// ones go on proposing the name that a new one proposes.
const maxMatches = 100

// FindMachine finds a machine by its name, its id, or the beginning of its id,
// and while it waits for approval by the name that it proposes; "machine/" may
// stand in front. One that does not exist is [ErrNotFound]; an ambiguous
// reference is a [UsageError].
func (s *Service) FindMachine(ctx context.Context, ref string) (*Machine, error) {
	m, _, err := s.findMachine(ctx, ref)
	return m, err
}

// FindNamed is [Service.FindMachine] for whoever changes something. Anybody can
// propose a name, so it goes by those that an operator approved.
func (s *Service) FindNamed(ctx context.Context, ref string) (*Machine, error) {
	m, proposed, err := s.findMachine(ctx, ref)
	if err == nil && proposed {
		return nil, disallow("no approved machine has this name; machine/%s proposes it: give the id if you mean that one", m.ID)
	}
	return m, err
}

func (s *Service) findMachine(ctx context.Context, ref string) (m *Machine, proposed bool, err error) {
	name := trimKind("machine", ref)
	if name == "" {
		return nil, false, usage("a machine is named by its name or its id")
	}
	found, err := s.Store.FindMachines(ctx, name, maxMatches)
	if err != nil {
		return nil, false, fmt.Errorf("finding a machine: %w", err)
	}
	found = slices.DeleteFunc(found, func(m Machine) bool { return m.proposes(name) && m.Status != MachinePending })
	for i := range found {
		if found[i].Name == name || found[i].ID == name {
			return &found[i], false, nil
		}
	}
	switch {
	case len(found) == 0:
		return nil, false, &NotFoundError{"machine", name}
	case len(found) > 1:
		return nil, false, usage("it names several machines: give the id, of which `keywright machine list` shows all")
	case found[0].proposes(name):
		return &found[0], true, nil
	case len(name) < minIDPrefix:
		return nil, false, usage("give at least %d characters of an id", minIDPrefix)
	default:
		return &found[0], false, nil
	}
}

// proposes tells whether ref names the machine by the name that it proposed
// alone.
func (m *Machine) proposes(ref string) bool {
	return m.Name == "" && m.Proposed == ref && !strings.HasPrefix(m.ID, ref)
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
		return nil, &NotFoundError{"measurement", digest}
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
