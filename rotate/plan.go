package rotate

import (
	"cmp"
	"fmt"
	"time"
)

// maxPlan bounds the steps of one kind and rule that no other setting bounds; the rest
// is counted and comes with the next plan.
const maxPlan = 500

// Plan is what is due at a moment.
type Plan struct {
	Now time.Time
	// Steps are what may be carried out, in this order.
	Steps []Step
	// Lines count the steps, and what is due beside them.
	Lines []Line
	// Overdue is what is older than the policy lets it become, but for what is
	// UnderWay, of which an order is young and has not failed, and Excused, for which
	// somebody answers.
	Overdue, UnderWay, Excused Lateness
	Orders                     Orders
}

// Orders counts what has begun.
type Orders struct {
	Open int64 // all of them
	// Waiting are for a machine that is away, or for its next boot; Failing have
	// failed before.
	Waiting, Failing int64
}

// Make plans what is due. It reads the volumes once.
func Make(state State, policy *Policy, now time.Time) (*Plan, error) {
	p := newPlanner(&state, policy, now)
	for i := range state.Keyrings {
		p.keyring(&state.Keyrings[i])
	}
	for _, m := range state.Superseded {
		p.measurement(m)
	}
	for v, err := range state.Volumes {
		if err != nil {
			return nil, fmt.Errorf("planning rotations: reading volumes: %w", err)
		}
		p.volume(&v)
	}
	return p.finish(), nil
}

// planner is one plan in the making.
type planner struct {
	state   *State
	policy  *Policy
	now     time.Time
	excuses map[string]*Excuse
	rules   []ruleWork
	lines   lines
	// What is late, and why it may be.
	overdue, underWay, excused lateness
	plan                       Plan
	// measurements counts the steps that retire one.
	measurements int
}

func newPlanner(state *State, policy *Policy, now time.Time) *planner {
	p := &planner{
		state: state, policy: policy, now: now, excuses: excuses(state.Excuses, now), lines: lines{},
		overdue: newLateness(), underWay: newLateness(), excused: newLateness(), plan: Plan{Now: now},
	}
	for i := range policy.Rules {
		p.rules = append(p.rules, newRuleWork(&policy.Rules[i], now))
	}
	return p
}

// late counts what is older than it may be; name is that of its machine, onItsWay
// tells that the machine is about to mend it.
func (p *planner) late(l Late, name string, onItsWay bool) {
	if !p.now.After(l.Deadline) {
		return
	}
	l.Excuse = cmp.Or(p.excuses[l.Machine], p.excuses[name])
	switch {
	case l.Machine != "" && l.Excuse != nil:
		p.excused.add(l)
	case onItsWay:
		p.underWay.add(l)
	default:
		p.overdue.add(l)
	}
}

func (p *planner) step(s Step) {
	p.plan.Steps = append(p.plan.Steps, s)
	p.lines.add(s.Rule, s.Kind, HoldNone, tally{1, s.Cost})
}

func (p *planner) finish() *Plan {
	for i := range p.rules {
		p.finishRule(&p.rules[i])
	}
	p.plan.Lines = p.lines.list(p.policy, true)
	p.plan.Overdue, p.plan.UnderWay, p.plan.Excused = p.overdue.list(), p.underWay.list(), p.excused.list()
	return &p.plan
}
