package kms

import (
	"cmp"
	"slices"

	"keywright.dev/kms/claims"
	"keywright.dev/kms/policy"
)

// judgePolicy asks the policy for each volume: all must be permitted. A denial
// is told as the most specific thing that is wrong with the boot.
func (r *releasing) judgePolicy(state *State, d *draft) *Refusal {
	engine := r.service.Policy()
	machine, boot := r.policyMachine(state), r.policyBoot(state)
	var decided []string
	for _, asked := range r.statement.Volumes {
		decision := engine.Release(machine, policy.Volume{ID: asked.ID, Machine: machine}, boot)
		decided = append(decided, decision.Policies...)
		if !decision.Allowed {
			d.policies = decision.Policies
			return r.denied(state, d, decision)
		}
	}
	slices.Sort(decided)
	d.policies = slices.Compact(decided)
	return nil
}

func (r *releasing) policyMachine(state *State) policy.Machine {
	m := state.Machine
	return policy.Machine{ID: m.ID, Name: m.Name, Group: m.Group, Status: string(m.Status)}
}

func (r *releasing) policyBoot(state *State) policy.Boot {
	boot := policy.Boot{
		Measurement: r.boot.Measurement, Platform: r.boot.Platform, State: r.boot.State,
		Approved: measurementApproved(state), PlatformApproved: platformApproved(state),
		Source: r.attested.Source, Time: r.service.Clock(),
	}
	if boot.Approved {
		boot.Matched = hexDigest(state.Measurements[0].Digest)
	}
	return boot
}

// denied names what an operator would have to approve; where all is approved,
// what the policy said.
func (r *releasing) denied(state *State, d *draft, decision policy.Decision) *Refusal {
	switch {
	case !measurementApproved(state):
		d.fact("measurement", r.nearestOf, hexDigest(r.boot.Measurement.Digest()))
		return refuse(ReasonMeasurement, "the measurement of this boot is not approved for group %s", state.Machine.Group)
	case !platformApproved(state):
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

func platformApproved(state *State) bool {
	return state.Platform != nil && state.Platform.Approved
}
