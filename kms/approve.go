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
	ActionDiscloseRecovery   = "volume.recovery_key"
	ActionExportCopies       = "volume.recovery_copies"
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
	// AnnouncedMeasurement and AnnouncedPlatform are the digests that the
	// operator saw announced. Where one is given and another is announced by
	// now, nothing is approved.
	AnnouncedMeasurement string
	AnnouncedPlatform    string
	// AllowUnmeasured approves a boot that nothing measured (tier identity): any
	// system on the machine gets the keys then. A policy must allow it as well.
	AllowUnmeasured bool
}

// Approved is a machine with the digests that were approved with it.
type Approved struct {
	*Machine
	ApprovedMeasurement, ApprovedPlatform [32]byte
}

// ApproveMachine makes a pending machine active, and approves the boot and the
// platform announced for it. On an active machine it approves the named
// measurement and platform.
func (s *Service) ApproveMachine(ctx context.Context, by Operator, ref string, a Approval) (*Approved, error) {
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
	return &Approved{p.approved, p.measurement.Digest, p.platform}, nil
}

// approving is one approval under way.
type approving struct {
	service     *Service
	by          Operator
	approval    Approval
	name, group string
	measurement *Measurement
	tier        claims.Tier // of the measurement
	platform    [32]byte
	// announced and announcedPlatform are what the machine must still announce
	// when it is approved.
	announced, announcedPlatform [32]byte
	approved                     *Machine
}

func (s *Service) prepareApproval(ctx context.Context, by Operator, m *Machine, a Approval) (*approving, error) {
	p := &approving{
		service: s, by: by, approval: a, name: a.Name, group: a.Group,
		platform: m.ExpectedPlatform, announced: m.Expected, announcedPlatform: m.ExpectedPlatform,
	}
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
		return nil, usageName()
	}
	if !validGroup(p.group) {
		return nil, usageGroup()
	}
	for _, given := range []struct {
		text, name string
		digest     *[32]byte
	}{
		{a.Platform, "--platform", &p.platform},
		{a.AnnouncedMeasurement, "the measurement announced", &p.announced},
		{a.AnnouncedPlatform, "the platform announced", &p.announcedPlatform},
	} {
		digest, ok := parseDigest(given.text)
		switch {
		case ok:
			*given.digest = digest
		case given.text != "":
			return nil, usage("%s is not 64 hexadecimal digits", given.name)
		}
	}
	return p, p.findMeasurement(ctx, m)
}

// findMeasurement reads the claims to approve: of the group that the machine
// goes to, or of any other where that one does not know them.
func (p *approving) findMeasurement(ctx context.Context, m *Machine) (err error) {
	switch {
	case p.approval.Measurement != "":
		p.measurement, err = p.service.findForGroup(ctx, p.approval.Measurement, p.group)
	case m.Expected == [32]byte{}:
		err = disallow("machine/%s has not finished its enrolment: run keywright-unlock enroll on it again", m.ID)
	default:
		p.measurement, err = p.service.FindMeasurement(ctx, hexDigest(m.Expected), m.Group)
	}
	if err != nil {
		return err
	}
	set, err := claims.Parse(p.measurement.Claims)
	if err != nil {
		return fmt.Errorf("reading measurement/%s: %w", hexDigest(p.measurement.Digest), err)
	}
	p.tier = claims.TierOf(set)
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
	if m.Status == MachinePending {
		updated.ExpectedPlatform = p.platform
	}
	if m.Status == MachinePending || m.Group != updated.Group {
		updated.Floors = nil // its boots were not of this group's measurements
	}
	platform := *state.Platform
	platform.Approved, platform.Expires = true, time.Time{}
	out := Outcome{
		Machine: &updated, Platforms: []Platform{platform},
		Measurements: []Measurement{p.measurement.approvedIn(p.group, p.by, now)},
	}
	if m.Status == MachinePending {
		out.Volumes = closeResumes(state.Volumes)
	}
	d := p.by.draft(ActionApprove, m.ID, machineObject(m.ID))
	d.fact("status", string(m.Status), string(updated.Status))
	d.fact("name", m.Name, updated.Name)
	d.fact("group", m.Group, updated.Group)
	d.fact("ek.trust", "", m.Trust)
	d.fact("tier", "", string(p.tier))
	d.fact("measurement", "", hexDigest(p.measurement.Digest))
	d.fact("platform", "", hexDigest(p.platform))
	for _, v := range state.Volumes {
		if v.Copied {
			d.fact("volume.copied", "", v.ID)
		}
	}
	p.approved = &updated
	return p.service.entered(out, d, audit.Done, nil)
}

func (p *approving) check(state *State) error {
	m := state.Machine
	switch {
	case m == nil:
		return ErrNotFound
	case m.Status == MachineRevoked:
		return disallow("it is revoked: `keywright machine readmit` lifts that")
	case !m.Committed:
		return disallow("it has not finished its enrolment: run keywright-unlock enroll on it again")
	case m.Expected != p.announced:
		return disallow("it announced another measurement meanwhile: look at it again with `keywright machine show`")
	case m.ExpectedPlatform != p.announcedPlatform:
		return disallow("it announced another platform meanwhile: look at it again with `keywright machine show`")
	case state.NameHolder != "" && state.NameHolder != m.ID:
		return disallow("another machine has the name: choose another with --name")
	case state.Platform == nil:
		return disallow("no platform set with that digest was seen on it")
	case p.tier == claims.Identity && !p.approval.AllowUnmeasured:
		return disallow("its boot is not measured (tier identity), so that any system on it would get the keys: if you want that, give --allow-unmeasured, and have a policy in the place of forbid-identity-tier that allows it")
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
