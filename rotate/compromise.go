package rotate

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"keywright.dev/kms"
)

// Incident is a key that is out.
type Incident struct {
	What Reference
	// Since is when it was found out: what was made before is replaced.
	Since time.Time
	// Copied tells that disks or headers may have been copied as well, so that whoever
	// has secrets has volume keys. Of a volume, a machine and a header it is so anyhow.
	Copied bool
}

// Chain is what is to be done about an incident, and what is not in this plan's power.
type Chain struct {
	Steps []Step
	Lines []Line
	// Unopenable are the images of disks that nothing opens after the chain, except
	// by a recovery key or a passphrase that was in their headers.
	Unopenable      []Unopenable
	UnopenableCount int64
	// Beyond says in words what only people can do.
	Beyond []string
}

// Unopenable are images of a volume that were made while a secret was the current one.
type Unopenable struct {
	Object      Object // the secret
	From, Until time.Time
}

// Compromised plans what is to be done about incidents, one at least; it reads the volumes
// once. A volume that more than one reaches gets one new secret, under the strictest terms.
// What was done already is in the state and not in the plan: whoever plans anew until
// there is nothing left has done it all. Windows, jitter and rates do not hold.
//
// A rewrap is not in it: who has the key has every secret that it ever wrapped, with
// whatever wrapping. So a fresh keyring version comes first, and the one that is out
// wraps nothing more; then each volume gets a secret that neither it nor anybody else
// ever saw; and only then, where volume keys could be reached, a volume key.
func Compromised(state State, policy *Policy, now time.Time, incidents ...Incident) (*Chain, error) {
	c := &chain{state: &state, policy: policy, incidents: incidents, now: now, lines: lines{}, volumes: newDamages(), found: make([]bool, len(incidents))}
	for i := range incidents {
		if err := c.keyring(&incidents[i]); err != nil {
			return nil, err
		}
	}
	for v, err := range state.Volumes {
		if err != nil {
			return nil, fmt.Errorf("planning what to do about %s: reading volumes: %w", incidents[0].What, err)
		}
		c.volume(&v)
	}
	for i := range incidents {
		if what := incidents[i].What; what.Kind != KeyringOut && !c.found[i] {
			return nil, fmt.Errorf("planning what to do about %s: there is no such volume, or machine with volumes: %w", what, what.notFound())
		}
	}
	c.finish()
	return &c.result, nil
}

// chain is one plan in the making.
type chain struct {
	state     *State
	policy    *Policy
	incidents []Incident
	now       time.Time
	lines     lines
	volumes   best[damage]
	found     []bool // by incident: a volume that it reaches
	// recovery counts the recovery keys that are out, and that no step replaces.
	recovery int64
	// first are the steps after which a new secret is safe.
	first  []Action
	result Chain
}

func (c *chain) step(s Step) {
	s.NotBefore, s.Due = c.now, c.incidents[0].Since
	c.result.Steps = append(c.result.Steps, s)
	c.lines.add(s.Rule, s.Kind, HoldNone, tally{1, s.Cost})
}

// keyring has a version that is out wrap nothing more, before anything else: another
// one takes its place, and it is disabled, so that it is not the current one again.
// What it wrapped it opens still, or no machine would boot; when nothing depends on it
// any more it is destroyed.
func (c *chain) keyring(incident *Incident) error {
	what := incident.What
	if what.Kind != KeyringOut {
		return nil
	}
	i := slices.IndexFunc(c.state.Keyrings, func(k kms.Keyring) bool { return k.Name == what.Name })
	if i < 0 || versionOf(&c.state.Keyrings[i], what.Version) == nil {
		return fmt.Errorf("planning what to do about %s: there is no such version: %w", what, what.notFound())
	}
	k := &c.state.Keyrings[i]
	v, r := versionOf(k, what.Version), c.policy.forKeyring(k.Name)
	if k.Current == v.Version {
		c.before(Step{
			Action: Action{RotateKeyring, keyringObject(k.Name, 0)}, Rule: r.Name, Cost: c.state.Speed.rotate(),
			Reason: "new secrets are to be wrapped with a version that is not out",
		})
	}
	if v.Status == kms.KeyringEnabled {
		c.before(Step{
			Action: Action{DisableKeyringVersion, keyringObject(k.Name, v.Version)}, Rule: r.Name,
			Reason: "it is out, and is not to wrap anything again",
		})
	}
	c.destroyVersion(k, v, r)
	c.beyond(k, v.Version)
	return nil
}

// before adds a step that everything after it waits for.
func (c *chain) before(s Step) {
	s.After = slices.Clone(c.first)
	c.step(s)
	c.first = append(c.first, s.Action)
}

func (c *chain) destroyVersion(k *kms.Keyring, v *kms.KeyringVersion, r *Rule) {
	switch {
	case v.Status == kms.KeyringScheduled || v.Status == kms.KeyringDestroyed:
	case v.Status != kms.KeyringDisabled || k.Count(v.Version) > 0:
		c.lines.add(r.Name, DestroyKeyringVersion, HoldCensus, tally{count: 1})
	default:
		c.step(Step{
			Action: Action{DestroyKeyringVersion, keyringObject(k.Name, v.Version)}, Rule: r.Name, Wait: kms.MinDestroyWait,
			Reason: "it is out and nothing depends on it",
		})
	}
}

// beyond names what no step of a volume reaches.
func (c *chain) beyond(k *kms.Keyring, version uint32) {
	for _, d := range k.Dependents {
		switch {
		case d.Version != version:
		case d.Kind == kms.DependentOutside:
			c.say("keyring/%s@%d wrapped for the key API: who has such ciphertexts is to replace what is in them", k.Name, version)
		case d.Kind == kms.DependentServiceKey:
			c.say("keyring/%s@%d wraps %d of the service's own keys (%s): they are out and are to be replaced, not rewrapped", k.Name, version, d.Count, d.Purpose)
		}
	}
}

func (c *chain) say(format string, args ...any) {
	c.result.Beyond = append(c.result.Beyond, fmt.Sprintf(format, args...))
}

// volume finds what of a volume is out.
func (c *chain) volume(v *Volume) {
	reached := c.reach(v)
	if len(reached) == 0 {
		return
	}
	r := &c.policy.Rules[c.policy.forVolume(v)]
	d := damage{volume: v.ID, machine: v.Machine, rule: r, away: !v.Connected, bytes: v.Bytes, ordered: v.Order.Kind != ""}
	recovery := false
	for _, in := range reached {
		if d.why == nil && in.out(&v.Secret) {
			d.why = in
		}
		recovery = recovery || in.recoveryOut(v)
		d.reencrypt = d.reencrypt || in.reached(v)
		d.atBoot = d.atBoot || in.What.Kind == MachineOut
	}
	if recovery && !d.reencrypt {
		c.recovery++
	}
	c.retained(&d, v, reached)
	if d.rekey() {
		d.secret = unopenable(v.ID, &v.Secret, time.Time{})
	}
	c.count(&d)
	if d.begins() {
		c.volumes.add(d)
	}
}

// reach returns the incidents that can reach a volume.
func (c *chain) reach(v *Volume) (list []*Incident) {
	for i := range c.incidents {
		if c.incidents[i].concerns(v) {
			c.found[i] = true
			list = append(list, &c.incidents[i])
		}
	}
	return list
}

// retained finds what is kept for restores, and out.
func (c *chain) retained(d *damage, v *Volume, reached []*Incident) {
	for i := range v.RestoreOnly {
		s := &v.RestoreOnly[i]
		if s.Version == v.Secret.Version || !slices.ContainsFunc(reached, func(in *Incident) bool { return in.out(&s.Secret) }) {
			continue
		}
		if hold := v.holds(s.Version, c.now); hold != HoldNone {
			c.lines.add(d.rule.Name, DestroySecret, hold, tally{count: 1})
			continue
		}
		d.retained = append(d.retained, unopenable(v.ID, &s.Secret, s.Replaced))
	}
}

func unopenable(volume string, s *Secret, until time.Time) Unopenable {
	return Unopenable{volumeObject(volume, s.Version), s.Created, until}
}

// concerns tells whether the incident can reach a volume.
func (in *Incident) concerns(v *Volume) bool {
	switch what := in.What; what.Kind {
	case KeyringOut:
		return true
	case MachineOut:
		return v.Machine == what.Name || v.Name == what.Name
	default:
		return v.ID == what.Name
	}
}

// out tells whether a secret is. What a machine that is out got while it ran is out,
// too, however new.
func (in *Incident) out(s *Secret) bool {
	what := in.What
	switch {
	case s.Version == 0:
		return false
	case what.Kind == KeyringOut:
		return contain(s.Wrapped, what.Name, what.Version)
	case what.Kind == MachineOut && !s.AtBoot:
		return true
	}
	return s.Created.Before(in.Since)
}

// recoveryOut tells whether the recovery key is. A reencryption makes another, as good as
// the volume key that it makes, in a system that runs.
func (in *Incident) recoveryOut(v *Volume) bool {
	key := v.Recovery
	key.AtBoot = true
	return in.out(&key)
}

// reached tells whether the volume key is out. A secret that was replaced, or destroyed,
// opens a copy of the header from before.
func (in *Incident) reached(v *Volume) bool {
	what := in.What
	if !v.keySince().Before(in.Since) {
		return false
	}
	return what.Kind != KeyringOut || in.Copied && contain(v.Wrapped, what.Name, what.Version)
}

// damage is what is out of one volume.
type damage struct {
	volume, machine    string
	rule               *Rule
	why                *Incident // by which the secret is out; nil where it is not
	secret             Unopenable
	retained           []Unopenable
	reencrypt, ordered bool
	atBoot, away       bool
	bytes              int64
}

func (d *damage) rekey() bool { return d.why != nil }

// begins tells whether anything can be done now. What waits for its order takes no room
// from others.
func (d *damage) begins() bool {
	return len(d.retained) > 0 || !d.ordered && (d.rekey() || d.reencrypt)
}

// newDamages keeps those first for which most is at stake. Volume keys come after all
// secrets: they take days, and no new secret is to wait for them.
func newDamages() best[damage] {
	return best[damage]{limit: maxPlan, compare: func(a, b damage) int {
		return cmp.Or(cmp.Compare(a.turn(), b.turn()), cmp.Compare(b.rule.Priority, a.rule.Priority), cmp.Compare(a.volume, b.volume))
	}}
}

func (d *damage) turn() int {
	if d.rekey() || len(d.retained) > 0 {
		return 0
	}
	return 1
}
