package rotate

import (
	"path"
	"slices"
	"strings"
)

// forVolume returns the index of the rule that holds for a volume.
func (p *Policy) forVolume(v *Volume) int {
	for i := range p.Rules {
		if p.Rules[i].matches(v) {
			return i
		}
	}
	return len(p.Rules) - 1
}

// forKeyring returns the rule that holds for a keyring's versions: the first that
// matches its name and does not ask for machines.
func (p *Policy) forKeyring(name string) *Rule {
	for i := range p.Rules {
		if r := &p.Rules[i]; !r.ofMachines() && matchAny(r.Keyrings, name) {
			return r
		}
	}
	return &p.Rules[len(p.Rules)-1]
}

// forGroup returns the rule that holds for what is approved for a group: the first that
// matches its name and asks for nothing else.
func (p *Policy) forGroup(group string) *Rule {
	for i := range p.Rules {
		if r := &p.Rules[i]; len(r.Keyrings)+len(r.Machines) == 0 && matchAny(r.Groups, group) {
			return r
		}
	}
	return &p.Rules[len(p.Rules)-1]
}

func (r *Rule) ofMachines() bool { return len(r.Groups)+len(r.Machines) > 0 }

func (r *Rule) matches(v *Volume) bool {
	return matchAny(r.Keyrings, v.Keyring) && matchAny(r.Groups, v.Group) && matchAny(r.Machines, v.Name)
}

func matchAny(patterns []string, name string) bool {
	return len(patterns) == 0 || slices.ContainsFunc(patterns, func(p string) bool { return match(p, name) })
}

func match(pattern, name string) bool {
	fixed, _, open := strings.Cut(pattern, "*")
	if !open || !strings.HasPrefix(name, fixed) {
		return pattern == name
	}
	ok, _ := path.Match(pattern, name) // its form was checked when it was parsed
	return ok
}
