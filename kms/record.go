package kms

import (
	"encoding/hex"
	"fmt"

	"keywright.dev/kms/audit"
	"keywright.dev/kms/claims"
)

// The actions of audit entries that guests cause.
const (
	ActionEnroll  = "machine.enroll"
	ActionCommit  = "machine.commit"
	ActionRelease = "boot.release"
	ActionStage   = "boot.stage"
	// ActionUnproven is an aggregate of refusals before fresh evidence of a machine
	// that is known.
	ActionUnproven = "guest.unproven"
)

// draft is an audit entry in the making.
type draft struct {
	action   string
	machine  string // id; may be empty
	object   string
	actor    audit.Actor
	request  string
	release  string
	facts    []audit.Fact
	policies []string
}

// machineDraft begins an entry about what a machine asked for.
func machineDraft(action string, a *Attested) draft {
	return draft{
		action: action, machine: a.Machine, object: machineObject(a.Machine),
		actor: audit.Actor{Kind: audit.ActorMachine, ID: a.Machine}, request: a.Request,
	}
}

func machineObject(id string) string { return "machine/" + id }

func (d *draft) fact(name, was, is string) {
	d.facts = append(d.facts, audit.Fact{Name: name, Was: was, Is: is})
}

func (d *draft) differences(differences []claims.Difference) {
	for _, x := range differences {
		d.fact(x.Name, x.Was, x.Is)
	}
}

// entry signs the draft.
func (s *Service) entry(d draft, outcome audit.Outcome, refusal *Refusal) (LogEntry, error) {
	id, err := audit.NewID(s.Random)
	if err != nil {
		return LogEntry{}, err
	}
	e := audit.Entry{
		ID: id, Time: s.Clock(), Actor: d.actor, Action: d.action, Object: d.object, Outcome: outcome,
		Policies: audit.BoundPolicies(d.policies), Request: d.request, Release: d.release, Count: 1,
	}
	if refusal != nil {
		e.Code = string(refusal.Reason)
		d.fact("detail", "", refusal.Detail)
	}
	e.Facts = audit.BoundFacts(d.facts)
	signed, err := s.Log.Sign(e)
	if err != nil {
		return LogEntry{}, fmt.Errorf("recording %s: %w", d.action, err)
	}
	return LogEntry{Signed: signed, Machine: d.machine, Action: d.action, Time: e.Time}, nil
}

// entered returns the outcome with the draft's entry.
func (s *Service) entered(out Outcome, d draft, result audit.Outcome, refusal *Refusal) (Outcome, error) {
	e, err := s.entry(d, result, refusal)
	if err != nil {
		return Outcome{}, err
	}
	out.Entries = append(out.Entries, e)
	return out, nil
}

// refused returns the outcome of a refusal with the draft's entry.
func (s *Service) refused(out Outcome, d draft, refusal *Refusal) (Outcome, *Refusal, error) {
	out, err := s.entered(out, d, audit.Refused, refusal)
	return out, refusal, err
}

func hexDigest(d [32]byte) string { return hex.EncodeToString(d[:]) }
