package rotate

import (
	"fmt"

	"keywright.dev/kms"
)

// keyring plans for a keyring as a whole first a version to move to, then the move;
// and for each of its other versions the end, as soon as nothing depends on it.
func (p *planner) keyring(k *kms.Keyring) {
	r := p.policy.forKeyring(k.Name)
	notBefore, opens := r.notBefore(p.now)
	step := Step{Rule: r.Name, NotBefore: notBefore}
	add := func(s Step) {
		if opens {
			p.step(s)
			return
		}
		p.lines.add(s.Rule, s.Kind, HoldWindow, tally{1, s.Cost})
	}
	if s, due := p.rotation(k, r, step); due {
		add(s)
	} else if s, due := p.rewrapping(k, step); due {
		add(s)
	}
	for i := range k.Versions {
		if s, due := retirement(k, &k.Versions[i], r, step); due {
			add(s)
		}
	}
}

func (p *planner) rotation(k *kms.Keyring, r *Rule, s Step) (Step, bool) {
	s.Action, s.Cost = Action{RotateKeyring, keyringObject(k.Name, 0)}, p.state.Speed.rotate()
	current := versionOf(k, k.Current)
	if current == nil {
		s.Due, s.Reason = p.now, "no version of it is enabled, so that nothing can be wrapped"
		return s, true
	}
	due, deadline, limited := r.due(k.Name, current.Created, r.KeyringAge)
	if !limited || p.now.Before(due) {
		return s, false
	}
	p.late(Late{Action: s.Action, Deadline: deadline}, "", false)
	s.Due = due
	s.Reason = fmt.Sprintf("version %d, the current one, is %s old: rule %s has it replaced before %s",
		current.Version, formatSpan(p.now.Sub(current.Created)), r.Name, r.KeyringAge)
	return s, true
}

func (p *planner) rewrapping(k *kms.Keyring, s Step) (Step, bool) {
	var rows int64
	for i := range k.Versions {
		if v := &k.Versions[i]; v.Version != k.Current {
			rows += movable(k, v.Version)
		}
	}
	s.Action, s.Cost = Action{RewrapKeyring, keyringObject(k.Name, 0)}, p.state.Speed.rewrap(rows)
	if rows == 0 {
		return s, false
	}
	s.Due = versionOf(k, k.Current).Created
	s.Reason = fmt.Sprintf("%d secrets and keys are on other versions than %d, the current one", rows, k.Current)
	return s, true
}

// retirement disables a version with which nothing is wrapped any more, and destroys it
// when nothing depends on it.
func retirement(k *kms.Keyring, v *kms.KeyringVersion, r *Rule, s Step) (Step, bool) {
	s.Object = keyringObject(k.Name, v.Version)
	switch {
	case v.Status == kms.KeyringEnabled && v.Version < k.Current && movable(k, v.Version) == 0:
		s.Kind, s.Due = DisableKeyringVersion, versionOf(k, k.Current).Created
		s.Reason = fmt.Sprintf("version %d took its place, and no secret and no key is on it", k.Current)
		return s, true
	case v.Status == kms.KeyringDisabled && k.Current != 0 && k.Count(v.Version) == 0:
		s.Kind, s.Due, s.Wait = DestroyKeyringVersion, v.Changed, r.DestroyWait
		s.Reason = "it is disabled and nothing depends on it"
		return s, true
	}
	return s, false
}

// movable counts what a rewrap moves: all but what the key API wrapped, which only its
// owners have.
func movable(k *kms.Keyring, version uint32) (rows int64) {
	for _, d := range k.Dependents {
		if d.Version == version && d.Kind != kms.DependentOutside {
			rows += d.Count
		}
	}
	return rows
}

func versionOf(k *kms.Keyring, version uint32) *kms.KeyringVersion {
	for i := range k.Versions {
		if k.Versions[i].Version == version {
			return &k.Versions[i]
		}
	}
	return nil
}
