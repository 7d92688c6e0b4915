package kms

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"keywright.dev/kms/audit"
	"keywright.dev/kms/claims"
	"keywright.dev/kms/exchange"
)

// Committed is the answer to the last step of an enrolment.
type Committed struct {
	Status MachineStatus
	// Measurement and Platform are the digests that the next boot is expected
	// to show: what an operator approves with the machine.
	Measurement, Platform [32]byte
}

// CommitEnrollment records that the keyslots are in place, what the headers
// are, and what the next boot is expected to measure.
func (s *Service) CommitEnrollment(ctx context.Context, a Attested) (Committed, error) {
	c, err := s.beginCommit(ctx, a)
	if err != nil {
		return Committed{}, s.unproven(err, a.Source)
	}
	key := Key{Machine: a.Machine, Recovery: true, Challenge: &c.redemption.Challenge}
	if c.refusal == nil {
		expected, platform := c.expected.Digest(), c.platform.Digest()
		key.Measurements = uniqueDigests(c.boot.Measurement.Digest(), expected)
		key.Platform = &platform
		for _, report := range c.details.Volumes {
			key.VolumeKeys = append(key.VolumeKeys, report.VolumeKeyDigest)
		}
	}
	if err := s.transact(ctx, key, c.decide); err != nil {
		return Committed{}, err
	}
	return c.result, nil
}

func uniqueDigests(a, b [32]byte) [][32]byte {
	if a == b {
		return [][32]byte{a}
	}
	return [][32]byte{a, b}
}

// committing is one commit under way.
type committing struct {
	*verified
	service    *Service
	attested   Attested
	redemption Redemption
	details    exchange.CommitDetails
	// expected is the measurement of the next boot, platform its platform set,
	// and source how they are known.
	expected    claims.Set
	platform    claims.Set
	source      MeasurementSource
	commandLine string // of expected
	alarms      []alarm
	result      Committed
}

func (s *Service) beginCommit(ctx context.Context, a Attested) (*committing, error) {
	v, redemption, err := s.verifyKnown(ctx, exchange.PurposeCommit, &a)
	if err != nil {
		return nil, err
	}
	c := &committing{verified: v, service: s, attested: a, redemption: redemption}
	refusal := c.readDetails()
	if c.refusal == nil {
		c.refusal = refusal
	}
	return c, nil
}

// readDetails lays what the next boot's files lead to over the attested boot.
func (c *committing) readDetails() *Refusal {
	details, err := exchange.ParseDetails[exchange.CommitDetails](c.statement.Details)
	if err != nil {
		return refuse(ReasonMalformed, "the details of the statement cannot be parsed")
	}
	c.details = details
	if c.refusal != nil {
		return nil // there is no boot to lay anything over
	}
	if len(details.NextBoot) == 0 {
		c.expected, c.platform, c.source = c.boot.Measurement, c.boot.Platform, SourceAttested
		c.commandLine = commandLineOf(c.expected, details.CommandLine)
		return nil
	}
	next := c.predicted(details.NextBoot)
	if next.refusal != nil {
		return next.refusal
	}
	c.expected, c.platform, c.commandLine, c.source = next.measurement, *next.platform, next.commandLine, SourcePredicted
	return nil
}

// decide is the decision about one commit. It may be repeated until the machine
// is approved.
func (c *committing) decide(state State) (Outcome, *Refusal, error) {
	if state.Machine == nil || !bytes.Equal(state.Machine.AK, c.ak.Public) {
		return Outcome{}, nil, fmt.Errorf("deciding a commit: the machine changed meanwhile: %w", ErrUnavailable)
	}
	action, judge, commit := ActionCommit, c.judge, c.commit
	if c.details.Add {
		action, judge, commit = ActionCommitVolume, c.judgeAdded, c.commitAdded
	}
	state.Volumes, c.alarms = presentVolumes(state.Volumes), nil
	d := machineDraft(action, &c.attested)
	if state.Redeemed {
		return c.service.refused(Outcome{}, d, refuseReplay())
	}
	out := Outcome{Redeem: &c.redemption}
	refusal := judge(&state, &d)
	if refusal == nil {
		refusal = commit(&out, &state)
	}
	if refusal != nil {
		return c.service.refused(Outcome{Redeem: &c.redemption}, d, refusal)
	}
	d.fact("measurement", "", hexDigest(out.Machine.Expected))
	d.fact("platform", "", hexDigest(out.Machine.ExpectedPlatform))
	out, err := c.service.entered(out, d, audit.Done, nil)
	if err == nil {
		err = c.service.raise(&out, c.attested.Request, c.alarms)
	}
	return out, nil, err
}

func (c *committing) judge(state *State, _ *draft) *Refusal {
	switch m := state.Machine; {
	case m.Status == MachineRevoked:
		return refuse(ReasonRevoked, "the machine is revoked")
	case m.Status != MachinePending:
		return refuse(ReasonEnrolled, "the enrolment is over: the machine is approved")
	case m.wentBack(c.boot.Counters, c.service.Clock()):
		return refuse(ReasonCounters, "the TPM's counters went back since the enrolment began")
	case c.refusal != nil:
		return c.refusal
	case len(c.statement.Volumes) != len(state.Volumes) || len(c.details.Volumes) != len(state.Volumes):
		return refuse(ReasonVolume, "the statement does not name every volume of the enrolment")
	default:
		return nil
	}
}

// commit writes what the statement says of every volume, and what boot follows.
func (c *committing) commit(out *Outcome, state *State) *Refusal {
	if refusal := c.activate(out, state); refusal != nil {
		return refusal
	}
	m := *state.Machine
	m.rebase(c.boot.Counters)
	m.Committed, m.ReenrollUntil = true, time.Time{}
	m.Pins = [][32]byte{c.statement.ServiceKey}
	out.Machine = &m
	return c.expect(out, state)
}

// activate makes volumes active and their secrets current.
func (c *committing) activate(out *Outcome, state *State) *Refusal {
	for i, asked := range c.statement.Volumes {
		known := findVolume(state.Volumes, asked.ID)
		report := c.details.Volumes[i]
		if known == nil || known.UUID != asked.UUID || report.ID != asked.ID || findAsked(c.statement.Volumes[:i], asked.ID) {
			return refuse(ReasonVolume, "volume %d of the statement is not one of the enrolment", i+1)
		}
		v := *known
		if refusal := v.describe(&report); refusal != nil {
			return refusal
		}
		v.Status, v.Identity = VolumeActive, asked.Identity[:]
		v.Accepted, v.Foreign = acceptedOf(&report), false
		c.alarms = append(c.alarms, v.holdKey(report.VolumeKeyDigest, state.SameKey, out)...)
		out.Volumes = append(out.Volumes, v)
		out.Secrets = append(out.Secrets, settle(state.Secrets, v.ID, report)...)
	}
	return nil
}

// settle makes a volume's secrets current: a recovery key where the header has a
// keyslot of it, for until the approval an enrolment can be run again without.
func settle(secrets []Secret, volume string, report exchange.VolumeReport) []Secret {
	var changed []Secret
	for _, purpose := range []string{PurposeKeyslot, PurposeRecovery} {
		status := SecretCurrent
		if purpose == PurposeRecovery && !hasRecovery(report) {
			status = SecretPending
		}
		if row := findFirst(secrets, volume, purpose); row != nil && row.Status != status {
			settled := *row
			settled.Status = status
			changed = append(changed, settled)
		}
	}
	return changed
}

func hasRecovery(report exchange.VolumeReport) bool {
	return slices.ContainsFunc(report.Tokens, func(t exchange.LUKSToken) bool {
		return t.Volume == report.ID && t.Purpose == PurposeRecovery && len(t.Slots) > 0
	})
}

// expect records the boot to approve.
func (c *committing) expect(out *Outcome, state *State) *Refusal {
	m := out.Machine
	m.Tier = string(claims.TierOf(c.expected))
	m.Measurement, m.Expected, m.ExpectedPlatform = c.boot.Measurement.Digest(), c.expected.Digest(), c.platform.Digest()
	c.see(out, state, c.expected, c.source, c.commandLine)
	c.see(out, state, c.boot.Measurement, SourceAttested, commandLineOf(c.boot.Measurement, c.details.CommandLine))
	if state.Platform == nil {
		out.Platforms = []Platform{{
			Machine: m.ID, Digest: m.ExpectedPlatform, Claims: c.platform.Marshal(), Created: c.service.Clock(),
		}}
	}
	if state.SeenMeasurements+len(out.Measurements) > maxSeen || state.SeenPlatforms+len(out.Platforms) > maxSeen {
		return refuse(ReasonRate, "%d boots of the machine wait for an operator already: approve or dismiss one of them, or revoke the machine", maxSeen)
	}
	c.result = Committed{Status: m.Status, Measurement: m.Expected, Platform: m.ExpectedPlatform}
	return nil
}

// see keeps a measurement for an operator to look at. One that waits already
// because of another machine waits for this one's sake from now on: the other
// may be forgotten.
func (c *committing) see(out *Outcome, state *State, set claims.Set, source MeasurementSource, commandLine string) {
	m, digest := state.Machine, set.Digest()
	row := Measurement{
		Digest: digest, Group: m.Group, Claims: set.Marshal(), CommandLine: commandLine,
		Status: MeasurementSeen, Source: source, Machine: m.ID, Created: c.service.Clock(),
	}
	if known := findMeasurement(state.Measurements, digest); known != nil {
		if known.Status != MeasurementSeen || known.Machine == m.ID {
			return
		}
		row = *known
		row.Machine = m.ID
	}
	if findMeasurement(out.Measurements, digest) == nil {
		out.Measurements = append(out.Measurements, row)
	}
}

func findMeasurement(rows []Measurement, digest [32]byte) *Measurement {
	i := slices.IndexFunc(rows, func(m Measurement) bool { return m.Digest == digest })
	if i < 0 {
		return nil
	}
	return &rows[i]
}
