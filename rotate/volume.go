package rotate

import (
	"cmp"
	"fmt"
	"time"
)

// ruleWork is what is due by one rule.
type ruleWork struct {
	*Rule
	notBefore time.Time
	opens     bool
	open      int // orders at machines that can be reached
	begun     int // orders within the period of the rate
	// near are orders for machines that can be reached, far those for machines that
	// are away, secrets those that are kept no longer.
	near, far, secrets pool
}

func newRuleWork(r *Rule, now time.Time) ruleWork {
	w := ruleWork{Rule: r, near: newPool(r.Concurrency), far: newPool(maxPlan), secrets: newPool(maxPlan)}
	w.notBefore, w.opens = r.notBefore(now)
	return w
}

// volume plans at most one order for a volume, and none while one is open. The
// secret comes before the volume key, so that a reencryption begins with a keyslot that
// is new.
func (p *planner) volume(v *Volume) {
	w := &p.rules[p.policy.forVolume(v)]
	w.begun += w.begunBy(v, p.now)
	if v.Order.Kind != "" {
		p.order(w, v)
	}
	rekey, reencrypt := p.dueOf(w, v)
	switch {
	case v.Order.Kind != "":
	case rekey.kind != "" && v.Connected:
		w.near.add(rekey, p.state.Speed.rekey())
	case rekey.kind != "":
		w.far.add(rekey, p.state.Speed.rekey())
	case reencrypt.kind != "" && v.Connected:
		w.near.add(reencrypt, p.state.Speed.reencrypt(v.Bytes))
	case reencrypt.kind != "":
		p.lines.add(w.Name, ReencryptVolume, HoldMachine, tally{1, p.state.Speed.reencrypt(v.Bytes)})
	}
	for i := range v.RestoreOnly {
		p.retained(w, v, &v.RestoreOnly[i])
	}
}

// begunBy counts the orders for a volume that began within the period of the rate. A
// volume's first secret and first volume key came with its enrolment.
func (w *ruleWork) begunBy(v *Volume, now time.Time) (count int) {
	from := now.Add(-w.Rate.Period)
	if v.Order.Kind != "" && v.Order.Opened.After(from) {
		count++
	}
	if v.Secret.Version > 1 && v.Secret.Created.After(from) {
		count++
	}
	if v.Reencrypted.After(from) {
		count++
	}
	return count
}

// order counts what is under way. An order that waits for a machine keeps nobody else
// waiting.
func (p *planner) order(w *ruleWork, v *Volume) {
	p.plan.Orders.Open++
	if v.Connected && !v.Order.AtBoot {
		w.open++
	} else {
		p.plan.Orders.Waiting++
	}
	if v.Order.Attempts > 0 {
		p.plan.Orders.Failing++
	}
}

// dueOf finds what is due of a volume's keys; of no kind where nothing is.
func (p *planner) dueOf(w *ruleWork, v *Volume) (rekey, reencrypt candidate) {
	if v.Secret.Version != 0 {
		rekey = p.candidate(w, v, RekeyVolume, v.Secret.Created, w.SecretAge)
	}
	return rekey, p.candidate(w, v, ReencryptVolume, v.keySince(), w.VolumeKeyAge)
}

func (p *planner) candidate(w *ruleWork, v *Volume, kind Kind, since time.Time, age Age) candidate {
	due, deadline, limited := w.due(v.ID, since, age)
	if !limited || p.now.Before(due) {
		return candidate{}
	}
	c := candidate{kind: kind, volume: v.ID, machine: v.Machine, due: due, since: since, away: !v.Connected, bytes: v.Bytes}
	ordered := v.Order.Kind == kind
	p.late(Late{Action: c.action(), Machine: v.Machine, Deadline: deadline, Seen: v.Seen, Ordered: ordered}, v.Name,
		ordered && v.Order.Attempts == 0 && p.now.Sub(v.Order.Opened) < w.AnswerWithin)
	return c
}

// retained plans the end of a secret that was kept for restores.
func (p *planner) retained(w *ruleWork, v *Volume, s *Retained) {
	due := s.Replaced.Add(w.RetainForRestore)
	if s.Version == v.Secret.Version || p.now.Before(due) {
		return
	}
	if hold := v.holds(s.Version, p.now); hold != HoldNone {
		p.lines.add(w.Name, DestroySecret, hold, tally{count: 1})
		return
	}
	w.secrets.add(candidate{
		kind: DestroySecret, volume: v.ID, version: s.Version, machine: v.Machine, due: due, since: s.Replaced,
	}, Cost{})
}

// finishRule takes what the rule lets begin; the rest is counted with what it waits for.
func (p *planner) finishRule(w *ruleWork) {
	p.take(w, &w.secrets, maxPlan, HoldPlan)
	if !w.opens {
		p.take(w, &w.near, 0, HoldWindow)
		p.take(w, &w.far, 0, HoldWindow)
		return
	}
	room, rate := w.Concurrency-w.open, w.Rate.Count-w.begun
	hold := HoldConcurrency
	if rate < room {
		hold = HoldRate
	}
	rate -= p.take(w, &w.near, min(room, rate), hold)
	hold = HoldPlan
	if rate < maxPlan {
		hold = HoldRate
	}
	p.take(w, &w.far, min(rate, maxPlan), hold)
}

// take makes steps of the first n of a pool and counts the rest.
func (p *planner) take(w *ruleWork, from *pool, n int, hold Hold) int {
	taken := from.first(n)
	for i := range taken {
		s := p.stepOf(w, &taken[i])
		p.step(s)
		from.total[s.Kind] = tally{from.total[s.Kind].count - 1, from.total[s.Kind].cost.minus(s.Cost)}
	}
	for _, kind := range []Kind{RekeyVolume, ReencryptVolume, DestroySecret} {
		p.lines.add(w.Name, kind, hold, from.total[kind])
	}
	return len(taken)
}

func (p *planner) stepOf(w *ruleWork, c *candidate) Step {
	s := Step{Action: c.action(), Machine: c.machine, Rule: w.Name, Due: c.due, NotBefore: w.notBefore, Away: c.away}
	age := formatSpan(p.now.Sub(c.since))
	switch c.kind {
	case RekeyVolume:
		s.Cost = p.state.Speed.rekey()
		s.Reason = fmt.Sprintf("its secret is %s old: rule %s has it replaced before %s", age, w.Name, w.SecretAge)
	case ReencryptVolume:
		s.Cost = p.state.Speed.reencrypt(c.bytes)
		s.Reason = fmt.Sprintf("its volume key is %s old: rule %s has it replaced before %s", age, w.Name, w.VolumeKeyAge)
	case DestroySecret:
		s.NotBefore = p.now
		s.Reason = fmt.Sprintf("another secret took its place %s ago: rule %s keeps it for restores for %s", age, w.Name, formatSpan(w.RetainForRestore))
	}
	return s
}

// candidate is what is due of a volume; small, since many are looked at.
type candidate struct {
	kind       Kind
	volume     string
	version    uint32 // of a secret
	machine    string
	due, since time.Time
	away       bool
	bytes      int64
}

func (c *candidate) action() Action { return Action{c.kind, volumeObject(c.volume, c.version)} }

// pool keeps the candidates that are due for longest and counts all.
type pool struct {
	best[candidate]
	total map[Kind]tally
}

func newPool(limit int) pool {
	return pool{total: map[Kind]tally{}, best: best[candidate]{limit: limit, compare: func(a, b candidate) int {
		return cmp.Or(a.due.Compare(b.due), cmp.Compare(a.volume, b.volume), cmp.Compare(a.version, b.version))
	}}}
}

func (l *pool) add(c candidate, cost Cost) {
	sum := l.total[c.kind]
	sum.add(1, cost)
	l.total[c.kind] = sum
	l.best.add(c)
}
