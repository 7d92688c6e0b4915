package kms

import (
	"context"
	"errors"
	"fmt"

	"keywright.dev/kms/audit"
	"keywright.dev/kms/claims"
)

// RenameMachine gives an approved machine another unique name.
func (s *Service) RenameMachine(ctx context.Context, by Operator, ref, name string) (*Machine, error) {
	if !validMachineName(name) {
		return nil, usageName()
	}
	return s.changeMachine(ctx, by, ref, Key{Name: name}, ActionRename, func(state *State, d *draft) (Machine, error) {
		m := *state.Machine
		if m.Name == "" {
			return m, disallow("it has no name yet: give it one with `keywright machine approve --name`")
		}
		if state.NameHolder != "" && state.NameHolder != m.ID {
			return m, disallow("another machine has the name")
		}
		d.fact("name", m.Name, name)
		m.Name = name
		return m, nil
	})
}

// RevokeMachine denies a machine every key from this transaction on. It
// returns the volumes whose secrets the machine may have kept from before: all,
// for the enrolment delivered them.
func (s *Service) RevokeMachine(ctx context.Context, by Operator, ref, reason string) (*Machine, []Volume, error) {
	var opens []Volume
	m, err := s.changeMachine(ctx, by, ref, Key{}, ActionRevoke, func(state *State, d *draft) (Machine, error) {
		m := *state.Machine
		opens = state.Volumes
		d.fact("status", string(m.Status), string(MachineRevoked))
		d.fact("reason", "", reason)
		m.Status = MachineRevoked
		return m, nil
	})
	return m, opens, err
}

// changeMachine is a change of one machine's row with its audit entry.
func (s *Service) changeMachine(ctx context.Context, by Operator, ref string, key Key, action string,
	change func(*State, *draft) (Machine, error),
) (*Machine, error) {
	found, err := s.FindNamed(ctx, ref)
	if err != nil {
		return nil, err
	}
	key.Machine = found.ID
	var changed Machine
	err = s.change(ctx, by, key, func(state State) (Outcome, error) {
		if state.Machine == nil {
			return Outcome{}, ErrNotFound
		}
		d := by.draft(action, found.ID, machineObject(found.ID))
		var err error
		if changed, err = change(&state, &d); err != nil {
			return Outcome{}, err
		}
		return s.entered(Outcome{Machine: &changed}, d, audit.Done, nil)
	})
	if err != nil {
		return nil, fmt.Errorf("%s machine/%s: %w", action, found.ID, err)
	}
	return &changed, nil
}

// ApproveMeasurement lets the machines of a group boot with a measurement that
// is known already, in this group or another.
func (s *Service) ApproveMeasurement(ctx context.Context, by Operator, ref, group string) (*Measurement, error) {
	found, err := s.findForGroup(ctx, ref, group)
	if err != nil {
		return nil, err
	}
	if group == "" {
		group = found.Group
	}
	if !validGroup(group) {
		return nil, usageGroup()
	}
	row := found.approvedIn(group, by, s.Clock())
	return s.enterMeasurement(ctx, by, ActionApproveMeasurement, row)
}

// findForGroup prefers the row of the group and else takes any: the digest
// determines the claims.
func (s *Service) findForGroup(ctx context.Context, ref, group string) (*Measurement, error) {
	found, err := s.FindMeasurement(ctx, ref, group)
	if group == "" || !errors.Is(err, ErrNotFound) {
		return found, err
	}
	rows, listErr := s.Store.FindMeasurements(ctx, trimKind("measurement", ref), maxFound)
	if listErr != nil || len(rows) == 0 {
		return nil, err
	}
	for _, row := range rows {
		if row.Digest != rows[0].Digest {
			return nil, usageDigest()
		}
	}
	return &rows[0], nil
}

// SubmitMeasurement enters the measurement that a boot file leads to on
// machines like the base, which is machine/NAME or measurement/DIGEST; group is
// needed where several have that measurement. It waits for approval.
func (s *Service) SubmitMeasurement(ctx context.Context, by Operator, base, group string, files []byte) (*Measurement, error) {
	from, err := s.baseOf(ctx, base, group)
	if err != nil {
		return nil, err
	}
	baseSet, err := claims.Parse(from.Claims)
	if err != nil {
		return nil, fmt.Errorf("reading measurement/%s: %w", hexDigest(from.Digest), err)
	}
	fileSet, err := claims.Parse(files)
	if err != nil {
		return nil, usage("the claims are not in their canonical form: compute them with `keywright measurement compute`")
	}
	next, err := claims.Successor(baseSet, fileSet)
	if err != nil {
		return nil, disallow("%v", err)
	}
	row := Measurement{
		Digest: next.Digest(), Group: from.Group, Claims: next.Marshal(),
		CommandLine: commandLineOfFiles(next, fileSet), Status: MeasurementSeen, Source: SourceOperator, Machine: from.Machine, Created: s.Clock(),
	}
	return s.enterMeasurement(ctx, by, ActionSubmitMeasurement, row)
}

// baseOf finds what a prediction is laid over: a machine's last attested boot,
// or a measurement.
func (s *Service) baseOf(ctx context.Context, base, group string) (*Measurement, error) {
	if ref := trimKind("measurement", base); ref != base {
		return s.FindMeasurement(ctx, ref, group)
	}
	m, err := s.FindNamed(ctx, base)
	if err != nil {
		return nil, err
	}
	if m.Measurement == ([32]byte{}) {
		return nil, disallow("machine/%s has attested no boot yet", m.ID)
	}
	return s.FindMeasurement(ctx, hexDigest(m.Measurement), m.Group)
}

// enterMeasurement writes a measurement with its audit entry. One that is
// approved already stays so.
func (s *Service) enterMeasurement(ctx context.Context, by Operator, action string, row Measurement) (*Measurement, error) {
	key := Key{Group: row.Group, Measurements: [][32]byte{row.Digest}}
	result := row
	err := s.change(ctx, by, key, func(state State) (Outcome, error) {
		was := ""
		result = row
		if len(state.Measurements) == 1 {
			was = string(state.Measurements[0].Status)
			if state.Measurements[0].Status == MeasurementApproved {
				result = state.Measurements[0]
			}
		}
		d := by.draft(action, "", "measurement/"+hexDigest(row.Digest))
		d.fact("group", "", row.Group)
		d.fact("status", was, string(result.Status))
		return s.entered(Outcome{Measurements: []Measurement{result}}, d, audit.Done, nil)
	})
	if err != nil {
		return nil, fmt.Errorf("%s measurement/%s: %w", action, hexDigest(row.Digest), err)
	}
	return &result, nil
}
