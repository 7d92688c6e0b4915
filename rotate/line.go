package rotate

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// Line counts what is due by one rule and is done in the same way: with nothing to wait
// for the steps of the plan, else what is not in it yet.
type Line struct {
	Rule  string
	Kind  Kind
	Hold  Hold
	Count int64
	Cost  Cost
	// Lasts is how long the line takes by itself, with as many orders at a time as
	// the rule lets begin.
	Lasts time.Duration
}

// lines are counted by rule, kind and hold.
type lines map[lineKey]tally

type lineKey struct {
	rule string
	kind Kind
	hold Hold
}

type tally struct {
	count int64
	cost  Cost
}

func (t *tally) add(count int64, c Cost) {
	t.count += count
	t.cost.add(c)
}

func (l lines) add(rule string, kind Kind, hold Hold, t tally) {
	if t.count == 0 {
		return
	}
	sum := l[lineKey{rule, kind, hold}]
	sum.add(t.count, t.cost)
	l[lineKey{rule, kind, hold}] = sum
}

// list orders the lines; rated tells that the rates hold.
func (l lines) list(p *Policy, rated bool) []Line {
	keys := slices.SortedFunc(maps.Keys(l), func(a, b lineKey) int {
		return cmp.Or(cmp.Compare(p.index(a.rule), p.index(b.rule)), cmp.Compare(a.kind, b.kind), cmp.Compare(a.hold, b.hold))
	})
	var list []Line
	for _, k := range keys {
		t := l[k]
		list = append(list, Line{k.rule, k.kind, k.hold, t.count, t.cost, p.Rules[p.index(k.rule)].lasts(k.kind, t, rated)})
	}
	return list
}

// lasts is bounded by what is open at a time, and by what may begin.
func (s *Settings) lasts(kind Kind, t tally, rated bool) time.Duration {
	if kind != RekeyVolume && kind != ReencryptVolume {
		return t.cost.Time
	}
	abreast := t.cost.Time / time.Duration(s.Concurrency)
	if !rated {
		return abreast
	}
	return max(abreast, time.Duration(t.count/int64(s.Rate.Count))*s.Rate.Period)
}

func (p *Policy) index(rule string) int {
	return slices.IndexFunc(p.Rules, func(r Rule) bool { return r.Name == rule })
}
