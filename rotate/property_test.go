package rotate

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// rounds are enough for every version to be destroyed after its wait.
const rounds = 40 * 24

// Whatever there is and whatever happens, no step does harm, and when machines answer,
// but those that never do, there comes a time when nothing is due.
func TestPlansConvergeAndDoNoHarm(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for range rapid.IntRange(0, 30).Draw(t, "rounds") {
			w.round(w.plan(), false)
			w.pass(time.Duration(rapid.IntRange(1, 20*24).Draw(t, "hours"))*time.Hour, false)
		}
		for range rounds {
			w.pass(time.Hour, true)
			p := w.plan()
			if w.quiet(p) {
				w.onlyLostAreLate(p)
				return
			}
			w.round(p, true)
		}
		t.Fatalf("after %d hours there is still to do: %v", rounds, w.plan().Lines)
	})
}

// plan plans twice, and checks the plan.
func (w *world) plan() *Plan {
	p, err := Make(w.state(), w.policy, w.now)
	require.NoError(w.t, err)
	again, err := Make(w.state(), w.policy, w.now)
	require.NoError(w.t, err)
	require.Equal(w.t, p, again, "a plan is a function of state, policy and time")
	objects := map[Object]bool{}
	for _, s := range p.Steps {
		require.False(w.t, objects[s.Object], "two steps of %s", s.Object)
		objects[s.Object] = true
		require.NotEmpty(w.t, s.Reason)
		require.False(w.t, s.Due.After(w.now), "%s is not due", s)
		require.False(w.t, s.NotBefore.Before(w.now))
	}
	w.countsAgree(p)
	return p
}

// countsAgree holds the plan's lines against its steps.
func (w *world) countsAgree(p *Plan) {
	steps := map[Kind]int64{}
	for _, s := range p.Steps {
		steps[s.Kind]++
	}
	for _, l := range p.Lines {
		require.Positive(w.t, l.Count)
		if l.Hold == HoldNone {
			steps[l.Kind] -= l.Count
		}
	}
	for kind, n := range steps {
		require.Zero(w.t, n, kind)
	}
}

// round carries out what may begin, unless the service dies before it did, and holds
// it to its bounds.
func (w *world) round(p *Plan, calm bool) {
	begun := map[string]int{}
	for i := range p.Steps {
		s := &p.Steps[i]
		if s.NotBefore.After(w.now) || !calm && rapid.IntRange(0, 3).Draw(w.t, "dies") == 0 {
			continue
		}
		w.apply(s, false)
		if s.Kind == RekeyVolume || s.Kind == ReencryptVolume {
			begun[s.Rule]++
		}
		if !s.Away && begun[s.Rule] > 0 {
			require.LessOrEqual(w.t, w.underWay(s.Rule), w.rule(s.Rule).Concurrency, s.Rule)
		}
	}
	for name, n := range begun {
		require.LessOrEqual(w.t, n, w.rule(name).Rate.Count, name)
	}
}

// underWay counts the orders at machines that could be reached when they were given.
func (w *world) underWay(rule string) (count int) {
	for _, v := range w.volumes {
		seen := v.seen()
		if v.order.Kind != "" && !v.order.AtBoot && !v.away && v.machine.connected && w.policy.Rules[w.policy.forVolume(&seen)].Name == rule {
			count++
		}
	}
	return count
}

func (w *world) rule(name string) *Rule { return &w.policy.Rules[w.policy.index(name)] }

// quiet tells that nothing is due but at machines that never answer.
func (w *world) quiet(p *Plan) bool {
	lost := slices.ContainsFunc(w.volumes, func(v *modelVolume) bool { return v.machine.lost })
	for _, l := range p.Lines {
		if !lost || l.Hold != HoldMachine && l.Hold != HoldOrder {
			return false
		}
	}
	return !slices.ContainsFunc(w.volumes, func(v *modelVolume) bool { return v.order.Kind != "" && !v.machine.lost })
}

func (w *world) onlyLostAreLate(p *Plan) {
	for _, l := range p.Overdue.First {
		require.True(w.t, w.volume(l.Object.Name).machine.lost, "%s is overdue since %s", l, l.Deadline)
	}
}

// Of whatever is out, the chain ends, and nothing that is out opens anything then.
func TestAttack18NothingNewIsUnderWhatIsOut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for range rapid.IntRange(0, 5).Draw(t, "rounds before") {
			w.round(w.plan(), false)
			w.pass(time.Duration(rapid.IntRange(1, 20*24).Draw(t, "hours"))*time.Hour, false)
		}
		for _, m := range w.machines {
			m.lost = false
		}
		incident := w.drawIncident()
		w.avoid = incident.What
		for range rounds {
			if incident.What.Kind != KeyringOut && rapid.Bool().Draw(t, "planned first") {
				w.round(w.plan(), true)
			}
			c, err := Compromised(w.state(), w.policy, w.now, incident)
			require.NoError(t, err)
			again, err := Compromised(w.state(), w.policy, w.now, incident)
			require.NoError(t, err)
			require.Equal(t, c, again)
			if len(c.Steps)+len(c.Lines) == 0 || len(c.Lines) == 1 && c.Lines[0].Hold == HoldCensus && w.outside[keyringObject(incident.What.Name, incident.What.Version)] {
				w.nothingIsOut(incident)
				return
			}
			w.chain(c)
			w.round(w.plan(), true)
			w.pass(time.Hour, rapid.Bool().Draw(t, "calm"))
		}
		t.Fatal("the chain does not end")
	})
}

func (w *world) drawIncident() Incident {
	i := Incident{Since: w.now, Copied: rapid.Bool().Draw(w.t, "copied")}
	v := rapid.SampledFrom(w.volumes).Draw(w.t, "of")
	switch rapid.SampledFrom([]ReferenceKind{KeyringOut, VolumeOut, MachineOut, HeaderOut}).Draw(w.t, "out") {
	case KeyringOut:
		k := rapid.SampledFrom(w.keyrings).Draw(w.t, "keyring")
		i.What = Reference{KeyringOut, k.Name, rapid.SampledFrom(k.Versions).Draw(w.t, "version").Version}
	case VolumeOut:
		i.What = Reference{VolumeOut, v.id, 0}
	case HeaderOut:
		i.What = Reference{HeaderOut, v.id, 0}
	case MachineOut:
		i.What = Reference{MachineOut, v.machine.name, 0}
	}
	return i
}

// chain carries out the steps whose predecessors are done; an order is done later.
func (w *world) chain(c *Chain) {
	done := map[Action]bool{}
	for i := range c.Steps {
		s := &c.Steps[i]
		if slices.ContainsFunc(s.After, func(a Action) bool { return !done[a] }) {
			continue
		}
		w.apply(s, true)
		done[s.Action] = s.Kind != RekeyVolume && s.Kind != ReencryptVolume
	}
}

func (w *world) nothingIsOut(i Incident) {
	for _, v := range w.volumes {
		seen := v.seen()
		concerned := i.What.Kind == KeyringOut || seen.ID == i.What.Name || seen.Name == i.What.Name
		for _, s := range v.all() {
			switch {
			case !concerned || s.status == "pending": // nobody has it yet
			case s == v.recovery: // a person's, who is told
			case i.What.Kind == KeyringOut:
				require.False(w.t, contain(s.Wrapped, i.What.Name, i.What.Version), "volume/%s@%d", v.id, s.Version)
			default:
				require.False(w.t, s.Created.Before(i.Since), "volume/%s@%d", v.id, s.Version)
				require.True(w.t, i.What.Kind != MachineOut || s.AtBoot, "volume/%s@%d", v.id, s.Version)
			}
		}
		reached := concerned && (i.What.Kind != KeyringOut || i.Copied && contain(v.wrapped, i.What.Name, i.What.Version))
		if reached {
			require.False(w.t, seen.keySince().Before(i.Since), "volume/%s", v.id)
		}
	}
}
