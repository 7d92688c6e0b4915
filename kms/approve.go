package kms

import (
	"context"
	"fmt"
	"time"

	"keywright.dev/kms/audit"
	"keywright.dev/kms/claims"
)

// The actions of audit entries that operators cause.
const (
	ActionApprove            = "machine.approve"
	ActionRename             = "machine.rename"
	ActionRevoke             = "machine.revoke"
	ActionApproveMeasurement = "measurement.approve"
	ActionSubmitMeasurement  = "measurement.submit"
)

// Approval is what an operator says about a machine.
type Approval struct {
	Name  string // empty: the proposed one
	Group string // empty: default, or the machine's
	// EKHash is what the operator read from the hypervisor. It is required
	// where nothing else vouches for the EK, and compared wherever given.
	EKHash string
	// Measurement is the digest of the boot to approve with the machine; empty:
	// the one announced for its next boot.
	Measurement string
	// Platform is the digest of the platform set to approve; empty: the one of
	// the enrolment.
	Platform string
}

// ApproveMachine makes a pending machine active, and approves the boot and the
// platform announced for it. On an active machine it approves the named
// measurement and platform.
func (s *Service) ApproveMachine(ctx context.Context, by Operator, ref string, a Approval) (*Machine, error) {
	found, err := s.FindMachine(ctx, ref)
	if err != nil {
		return nil, err
	}
	p, err := s.prepareApproval(ctx, by, found, a)
	if err != nil {
		return nil, err
	}
	key := Key{
		Machine: found.ID, Name: p.name, Group: p.group,
		Measurements: [][32]byte{p.measurement.Digest}, Platform: &p.platform,
	}
	if err := s.change(ctx, by, key, p.decide); err != nil {
		return nil, fmt.Errorf("approving machine/%s: %w", found.ID, err)
	}
	return p.approved, nil
}

// approving is one approval under way.
type approving struct {
	service     *Service
	by          Operator
	approval    Approval
	name, group string
	measurement *Measurement
	platform    [32]byte
	approved    *Machine
}

func (s *Service) prepareApproval(ctx context.Context, by Operator, m *Machine, a Approval) (*approving, error) {
	p := &approving{service: s, by: by, approval: a, name: a.Name, group: a.Group, platform: m.ExpectedPlatform}
	if p.name == "" {
		p.name = m.Name
	}
	if p.name == "" {
		p.name = m.Proposed
	}
	if p.group == "" {
		p.group = m.Group
	}
	if !validMachineName(p.name) {
		return nil, usage("the name %.130q is not one: use a-z, 0-9, - and ., beginning and ending with a letter or digit", p.name)
	}
	if !validGroup(p.group) {
		return nil, usage("the group %.70q is not a name: use a-z, 0-9, - and ., at most %d characters", p.group, MaxName)
	}
	if a.Platform != "" {
		digest, ok := parseDigest(a.Platform)
		if !ok {
			return nil, usage("--platform is not 64 hexadecimal digits")
		}
		p.platform = digest
	}
	return p, p.findMeasurement(ctx, m)
}

// findMeasurement reads the claims to approve: they may be known in another
// group than the one the machine goes to.
func (p *approving) findMeasurement(ctx context.Context, m *Machine) error {
	ref, group := p.approval.Measurement, ""
	if ref == "" {
		if m.Expected == ([32]byte{}) {
			return disallow("machine/%s has not finished its enrolment: run keywright-unlock enroll on it again", m.ID)
		}
		ref, group = hexDigest(m.Expected), m.Group
	}
	found, err := p.service.FindMeasurement(ctx, ref, group)
	if err != nil {
		return err
	}
	p.measurement = found
	return nil
}

func (p *approving) decide(state State) (Outcome, error) {
	m := state.Machine
	if err := p.check(&state); err != nil {
		return Outcome{}, err
	}
	now := p.service.Clock()
	updated := *m
	updated.Name, updated.Group = p.name, p.group
	if m.Status == MachinePending {
		updated.Status, updated.Approved, updated.ApprovedBy = MachineActive, now, p.by.ID
	}
	updated.ExpectedPlatform = p.platform
	platform := *state.Platform
	platform.Approved = true
	out := Outcome{
		Machine: &updated, Platforms: []Platform{platform}, Volumes: closeResumes(state.Volumes),
		Measurements: []Measurement{p.measurement.approvedIn(p.group, p.by, now)},
	}
	d := p.by.draft(ActionApprove, m.ID, machineObject(m.ID))
	d.fact("status", string(m.Status), string(updated.Status))
	d.fact("name", m.Name, updated.Name)
	d.fact("group", m.Group, updated.Group)
	d.fact("ek.trust", "", m.Trust)
	d.fact("measurement", "", hexDigest(p.measurement.Digest))
	d.fact("platform", "", hexDigest(p.platform))
	p.approved = &updated
	return p.service.entered(out, d, audit.Done, nil)
}

func (p *approving) check(state *State) error {
	m := state.Machine
	switch {
	case m == nil:
		return ErrNotFound
	case m.Status == MachineRevoked:
		return disallow("it is revoked")
	case !m.Committed:
		return disallow("it has not finished its enrolment: run keywright-unlock enroll on it again")
	case state.NameHolder != "" && state.NameHolder != m.ID:
		return disallow("another machine has the name %q: choose one with --name", p.name)
	case state.Platform == nil:
		return disallow("no platform set with that digest was seen on it")
	case claims.Tier(m.Tier) == claims.Identity:
		return disallow("its boot is not measured (tier identity), so that any system on it would get the keys; this is off by default")
	default:
		return p.checkEK(m)
	}
}

// checkEK compares the hash that a person read from the hypervisor.
func (p *approving) checkEK(m *Machine) error {
	if p.approval.EKHash == "" {
		if m.Status == MachinePending && m.Trust == TrustByPerson {
			return usage("nobody vouches for its TPM: read the EK hash from the hypervisor and give it with --ek-hash")
		}
		return nil
	}
	digest, ok := parseDigest(p.approval.EKHash)
	if !ok {
		return usage("--ek-hash is not 64 hexadecimal digits")
	}
	if hexDigest(digest) != m.ID {
		return disallow("its EK hash is %s, not the one given: this is not the machine you meant, or its TPM was exchanged", m.ID)
	}
	return nil
}

// approvedIn returns the measurement as approved in a group.
func (m *Measurement) approvedIn(group string, by Operator, now time.Time) Measurement {
	row := *m
	row.Group = group
	row.Status, row.Approved, row.ApprovedBy = MeasurementApproved, now, by.ID
	return row
}

// closeResumes returns the volumes whose enrolment can no longer be resumed.
func closeResumes(volumes []Volume) []Volume {
	var changed []Volume
	for _, v := range volumes {
		if len(v.Resume) > 0 {
			v.Resume = nil
			changed = append(changed, v)
		}
	}
	return changed
}
