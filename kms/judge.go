package kms

import (
	"cmp"
	"slices"
	"time"

	"keywright.dev/kms/claims"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/policy"
)

// judgePolicy asks the policy for each volume: all must be permitted. A denial
// is told as the most specific thing that is wrong with the boot.
func (r *releasing) judgePolicy(state *State, d *draft) *Refusal {
	boot := r.policyBoot(&r.attested, r.service.Clock())
	boot.Approved, boot.PlatformApproved = measurementApproved(state), r.platformApproved(state)
	if boot.Approved {
		boot.Matched = hexDigest(state.Measurements[0].Digest)
	}
	var decision policy.Decision
	decision, d.policies = releases(r.service.Policy(), state.Machine, r.statement.Volumes, boot)
	if !decision.Allowed {
		return r.denied(state, d, decision)
	}
	return nil
}

// releases asks the policy for each volume until one is denied: the last
// decision, and all policies that determined it.
func releases(engine Policy, m *Machine, volumes []exchange.Volume, boot policy.Boot) (last policy.Decision, decided []string) {
	machine := policyMachine(m)
	for _, asked := range volumes {
		last = engine.Release(machine, policy.Volume{ID: asked.ID, Machine: machine}, boot)
		if !last.Allowed {
			return last, last.Policies
		}
		decided = append(decided, last.Policies...)
	}
	slices.Sort(decided)
	return last, slices.Compact(decided)
}

func policyMachine(m *Machine) policy.Machine {
	return policy.Machine{ID: m.ID, Name: m.Name, Group: m.Group, Status: string(m.Status)}
}

// policyBoot is the attested boot as policies see it, approved by nobody yet.
func (v *verified) policyBoot(a *Attested, now time.Time) policy.Boot {
	return policy.Boot{
		Measurement: v.boot.Measurement, Platform: v.boot.Platform, State: v.boot.State, Source: a.Source, Time: now,
	}
}

// key loads what a decision about an attested boot needs.
func (v *verified) key(a *Attested, redemption *Redemption) Key {
	key := Key{Machine: a.Machine, Challenge: &redemption.Challenge}
	if v.refusal == nil {
		platform := v.boot.Platform.Digest()
		key.Measurements = [][32]byte{v.boot.Measurement.Digest()}
		key.Platform = &platform
	}
	return key
}

// runningBoot is the boot as policies see it of a system that runs.
func (v *verified) runningBoot(a *Attested, state *State, now time.Time) policy.Boot {
	boot := v.policyBoot(a, now)
	boot.PlatformApproved = state.Platform.approvedFor(state.Machine, now)
	return boot
}

// matchMeasurement looks for the approval of a boot's measurement.
func matchMeasurement(boot *policy.Boot, state *State) {
	known := findMeasurement(state.Measurements, boot.Measurement.Digest())
	if boot.Approved = known != nil && known.Status == MeasurementApproved; boot.Approved {
		boot.Matched = hexDigest(known.Digest)
	}
}

// judgeRunning asks the policy about what a machine wants to do in the boot that
// runs. A denial is told as the most specific thing that is wrong with that boot.
func judgeRunning(state *State, boot policy.Boot, ask func(Policy, policy.Machine, policy.Boot) policy.Decision, by Policy, d *draft) *Refusal {
	matchMeasurement(&boot, state)
	decision := ask(by, policyMachine(state.Machine), boot)
	d.policies = decision.Policies
	switch {
	case decision.Allowed:
		return nil
	case !boot.Approved:
		d.fact("measurement", "", hexDigest(boot.Measurement.Digest()))
		return refuse(ReasonMeasurement, "the measurement of the running boot %s", unapproved(state.Measurements, boot.Measurement.Digest(), state.Machine.Group))
	case !boot.PlatformApproved:
		d.fact("platform", "", hexDigest(boot.Platform.Digest()))
		return refuse(ReasonPlatform, "the platform claims of the running boot are not approved for the machine")
	default:
		return refuse(ReasonPolicy, "%s", decision)
	}
}

// denied names what an operator would have to approve; where all is approved,
// what the policy said.
func (r *releasing) denied(state *State, d *draft, decision policy.Decision) *Refusal {
	switch {
	case !measurementApproved(state):
		d.fact("measurement", r.nearestOf, hexDigest(r.boot.Measurement.Digest()))
		return refuse(ReasonMeasurement, "the measurement of this boot %s", unapproved(state.Measurements, r.boot.Measurement.Digest(), state.Machine.Group))
	case !r.platformApproved(state):
		d.fact("platform", cmp.Or(r.nearestOf, hexDigest(state.Machine.ExpectedPlatform)), hexDigest(r.boot.Platform.Digest()))
		return refuse(ReasonPlatform, "the platform claims of this boot are not approved for the machine")
	case r.boot.Tier == claims.Identity:
		return refuse(ReasonPolicy, "the boot is not measured (tier identity): %s", decision)
	default:
		return refuse(ReasonPolicy, "%s", decision)
	}
}

func measurementApproved(state *State) bool {
	return len(state.Measurements) == 1 && state.Measurements[0].Status == MeasurementApproved
}

func (r *releasing) platformApproved(state *State) bool {
	return state.Platform.approvedFor(state.Machine, r.service.Clock())
}
