package kms

import (
	"crypto/hmac"
	"slices"

	"keywright.dev/kms/attest"
	"keywright.dev/kms/exchange"
)

// The actions of audit entries about an active machine that adds a volume.
const (
	ActionAddVolume    = "volume.add"
	ActionCommitVolume = "volume.commit"
)

// judgeMachine refuses what only an active machine may do.
func judgeMachine(m *Machine, v *verified) *Refusal {
	switch {
	case m.Status == MachineRevoked:
		return refuse(ReasonRevoked, "the machine is revoked")
	case m.Status != MachineActive:
		return refuse(ReasonPending, "the machine waits for approval: until then all of its volumes are enrolled together")
	case v.boot.Counters.Since(m.Counters) == attest.Regression:
		return refuse(ReasonCounters, "the TPM's counters went back: a clone, a snapshot, or a cleared TPM")
	default:
		return v.refusal
	}
}

// judgeAddition asks the policy whether the machine may add volumes in the boot
// that runs.
func (s *Service) judgeAddition(v *verified, a *Attested, state *State, d *draft) *Refusal {
	return judgeRunning(state, v.runningBoot(a, state, s.Clock()), Policy.AddVolume, s.Policy(), d)
}

// judgeAdding is [enrolling.judge] for a machine that adds volumes: it must be
// active, and its running boot approved.
func (e *enrolling) judgeAdding(state *State, d *draft) *Refusal {
	m := state.Machine
	switch {
	case m == nil:
		return refuse(ReasonMachine, "no machine has this id")
	case !slices.Equal(m.AK, e.keys.AK):
		return refuse(ReasonEnrolled, "the machine is enrolled with another attestation key")
	}
	if refusal := judgeMachine(m, e.verified); refusal != nil {
		return refusal
	}
	if refusal := e.judgeUUIDs(); refusal != nil {
		return refusal
	}
	for i, asked := range e.statement.Volumes {
		known := findUUID(state.Volumes, asked.UUID)
		if known != nil && known.Status == VolumeActive && !resumesVolume(known, asked) {
			return refuse(ReasonEnrolled, "volume %d of the statement is enrolled already", i+1)
		}
	}
	if n := len(e.kept(state)) + len(e.statement.Volumes); n > exchange.MaxVolumes {
		return refuse(ReasonVolume, "the machine would have %d volumes, at most %d are allowed", n, exchange.MaxVolumes)
	}
	return e.service.judgeAddition(e.verified, &e.attested, state, d)
}

// kept returns the volumes that an addition neither names nor drops.
func (e *enrolling) kept(state *State) []Volume {
	return slices.DeleteFunc(slices.Clone(state.Volumes), func(v Volume) bool { return e.names(&v) || e.stale(&v) })
}

func (e *enrolling) names(v *Volume) bool {
	return slices.ContainsFunc(e.statement.Volumes, func(asked exchange.Volume) bool { return asked.UUID == v.UUID })
}

// stale tells whether a volume's enrolment was not committed in time.
func (e *enrolling) stale(v *Volume) bool {
	return v.Status == VolumePending && e.service.Clock().Sub(v.Created) >= uncommittedFor
}

// add makes a pending volume and secret for each volume of the statement that
// does not show the resume id of an addition that was interrupted. No other
// volume changes, but those are dropped whose addition was given up.
func (e *enrolling) add(out *Outcome, state *State, _ *draft) error {
	m := *state.Machine
	m.Counters = e.boot.Counters
	out.Machine = &m
	for _, v := range state.Volumes {
		if !e.names(&v) && e.stale(&v) {
			out.DropVolumes = append(out.DropVolumes, v.ID)
		}
	}
	for _, asked := range e.statement.Volumes {
		known := findUUID(state.Volumes, asked.UUID)
		switch {
		case known != nil && resumesVolume(known, asked):
			if err := e.repeat(out, state, known); err != nil {
				return err
			}
			continue
		case known != nil:
			out.DropVolumes = append(out.DropVolumes, known.ID)
		}
		if err := e.addVolume(out, asked, keyringFor(state.Volumes)); err != nil {
			return err
		}
	}
	return nil
}

// resumesVolume tells whether the statement shows a volume's open resume id.
func resumesVolume(known *Volume, asked exchange.Volume) bool {
	return len(known.Resume) > 0 && known.ID == asked.ID && known.UUID == asked.UUID && hmac.Equal(known.Resume, asked.Resume[:])
}

func findUUID(volumes []Volume, uuid string) *Volume {
	i := slices.IndexFunc(volumes, func(v Volume) bool { return v.UUID == uuid })
	if i < 0 {
		return nil
	}
	return &volumes[i]
}

// judgeAdded is [committing.judge] for volumes that an active machine adds.
func (c *committing) judgeAdded(state *State, d *draft) *Refusal {
	if refusal := judgeMachine(state.Machine, c.verified); refusal != nil {
		return refusal
	}
	if len(c.details.Volumes) != len(c.statement.Volumes) {
		return refuse(ReasonVolume, "the statement does not report on every volume that it names")
	}
	if len(c.details.NextBoot) > 0 {
		return refuse(ReasonMalformed, "an addition says nothing of the next boot: that is staged")
	}
	return c.service.judgeAddition(c.verified, &c.attested, state, d)
}

// commitAdded makes the volumes of the statement active. They were added by this
// machine and have not been released to a boot yet; no other volume changes.
func (c *committing) commitAdded(out *Outcome, state *State) *Refusal {
	m := *state.Machine
	m.Counters = c.boot.Counters
	out.Machine = &m
	for i, asked := range c.statement.Volumes {
		known := findVolume(state.Volumes, asked.ID)
		switch {
		case known == nil || known.UUID != asked.UUID || findAsked(c.statement.Volumes[:i], asked.ID):
			return refuse(ReasonVolume, "volume %d of the statement is none that was added", i+1)
		case len(known.Resume) == 0:
			return refuse(ReasonEnrolled, "volume/%s is enrolled already", known.ID)
		case known.Status == VolumeActive && !slices.Equal(known.Identity, asked.Identity[:]):
			return refuse(ReasonVolume, "the LUKS header of volume/%s is not the one that was committed", known.ID)
		}
	}
	c.result = Committed{Status: m.Status, Measurement: m.Expected, Platform: m.ExpectedPlatform}
	return c.activate(out, state)
}

// received closes the resume ids of the volumes that a boot received: their
// addition is over.
func (r *releasing) received(out *Outcome, state *State) {
	for _, asked := range r.statement.Volumes {
		known := findVolume(state.Volumes, asked.ID)
		if known == nil || len(known.Resume) == 0 {
			continue
		}
		if findVolume(out.Volumes, asked.ID) == nil {
			out.Volumes = append(out.Volumes, *known)
		}
		findVolume(out.Volumes, asked.ID).Resume = nil
	}
}
