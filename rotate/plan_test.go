package rotate

import (
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
)

// someKeyrings are one keyring, made then, of one version that opens so many secrets.
func someKeyrings(made time.Time, count int64) []kms.Keyring {
	return []kms.Keyring{{
		Name: "default", Current: 1,
		Versions:   []kms.KeyringVersion{{Keyring: "default", Version: 1, Status: kms.KeyringEnabled, Created: made, Changed: made}},
		Dependents: []kms.Dependents{{Keyring: "default", Version: 1, Kind: kms.DependentSecret, Count: count}},
	}}
}

func TestAPlanIsBoundedByItsRuleAndCountsTheRest(t *testing.T) {
	p, err := Parse([]byte("[default]\nconcurrency = 30\nrate = \"40/h\"\n"))
	require.NoError(t, err)
	now := at(t, "2026-01-01T00:00:00Z")
	plan, err := Make(State{Volumes: someVolumes(1000), Speed: Speed{Rekey: time.Minute}}, p, now)
	require.NoError(t, err)

	// 950 machines can be reached: 30 at a time. The others wait for a boot: what is
	// left of the rate.
	var boots int
	for _, s := range plan.Steps {
		assert.Equal(t, RekeyVolume, s.Kind)
		assert.Equal(t, now, s.NotBefore)
		if s.Away {
			boots++
		}
	}
	assert.Len(t, plan.Steps, 40)
	assert.Equal(t, 10, boots)
	assert.Equal(t, []Line{
		{"default", RekeyVolume, HoldNone, 40, Cost{Guests: 40, Time: 40 * time.Minute}, time.Hour},
		{"default", RekeyVolume, HoldConcurrency, 920, Cost{Guests: 920, Time: 920 * time.Minute}, 23 * time.Hour},
		{"default", RekeyVolume, HoldRate, 40, Cost{Guests: 40, Time: 40 * time.Minute}, time.Hour},
	}, plan.Lines)
	assert.EqualValues(t, 1000, plan.Overdue.Count)
	assert.Len(t, plan.Overdue.First, maxLate)
}

func TestWhatIsDueForLongestIsFirst(t *testing.T) {
	p := Default()
	p.Rules[0].Concurrency = 10
	now := at(t, "2026-01-01T00:00:00Z")
	var all []Step
	for _, count := range []int{10, 400} {
		plan, err := Make(State{Volumes: someVolumes(count)}, p, now)
		require.NoError(t, err)
		near := slices.DeleteFunc(plan.Steps, func(s Step) bool { return s.Away })
		assert.True(t, slices.IsSortedFunc(near, func(a, b Step) int { return a.Due.Compare(b.Due) }))
		all = near
	}
	w := p.Rules[0]
	var earlier int
	for v := range someVolumes(400) {
		due, _, _ := w.due(v.ID, v.Secret.Created, w.SecretAge)
		if v.Connected && due.Before(all[9].Due) {
			earlier++
		}
	}
	assert.Equal(t, 9, earlier)
}

func TestEveryObjectHasItsMomentBeforeItsDeadline(t *testing.T) {
	s := Shipped()
	since := at(t, "2026-01-01T00:00:00Z")
	var first, last time.Time
	for v := range someVolumes(1000) {
		due, deadline, ok := s.due(v.ID, since, s.SecretAge)
		require.True(t, ok)
		require.Equal(t, since.Add(365*day), deadline)
		require.False(t, due.After(deadline))
		require.True(t, due.After(deadline.Add(-s.Jitter)))
		if first.IsZero() || due.Before(first) {
			first = due
		}
		if due.After(last) {
			last = due
		}
	}
	assert.Greater(t, last.Sub(first), 29*day, "they are spread over the jitter")
}

func TestAnExcuseChangesTheReportAndNotTheWork(t *testing.T) {
	now := at(t, "2026-01-01T00:00:00Z")
	excused := volumeAt(0).Machine
	state := State{Volumes: someVolumes(3), Excuses: []Excuse{{Machine: excused, Owner: "ann", Reason: "on a ship", Until: now.Add(day)}}}
	plan, err := Make(state, Default(), now)
	require.NoError(t, err)
	assert.Len(t, plan.Steps, 3)
	assert.EqualValues(t, 2, plan.Overdue.Count)
	require.EqualValues(t, 1, plan.Excused.Count)
	assert.Equal(t, excused, plan.Excused.First[0].Machine)
	assert.Equal(t, "ann", plan.Excused.First[0].Excuse.Owner)

	plan, err = Make(state, Default(), now.Add(day))
	require.NoError(t, err)
	assert.EqualValues(t, 3, plan.Overdue.Count, "the excuse ended")
	assert.Zero(t, plan.Excused.Count)
}

func TestWhatIsOverdueMayBeUnderWay(t *testing.T) {
	now := at(t, "2026-01-01T00:00:00Z")
	for name, c := range map[string]struct {
		order    Order
		underWay bool
	}{
		"not ordered":         {Order{}, false},
		"ordered now":         {Order{Kind: RekeyVolume, Opened: now}, true},
		"on its way":          {Order{Kind: RekeyVolume, Opened: now.Add(-7*day + time.Second), AtBoot: true}, true},
		"no answer":           {Order{Kind: RekeyVolume, Opened: now.Add(-7 * day)}, false},
		"failed":              {Order{Kind: RekeyVolume, Opened: now, Attempts: 1}, false},
		"ordered for another": {Order{Kind: ReencryptVolume, Opened: now}, false},
	} {
		t.Run(name, func(t *testing.T) {
			v := volumeAt(0)
			v.Secret.Created, v.Order = now.AddDate(-2, 0, 0), c.order
			plan, err := Make(State{Volumes: only(v)}, Default(), now)
			require.NoError(t, err)
			assert.Equal(t, c.underWay, plan.UnderWay.Count == 1)
			assert.Equal(t, !c.underWay, plan.Overdue.Count == 1)
		})
	}
}

func TestExcusesAreReadFromAFile(t *testing.T) {
	now := at(t, "2026-01-01T12:00:00Z")
	one := "[[excuse]]\nmachine = \"machine/m-web\"\nowner = \"ann\"\nreason = \"on a ship\"\nuntil = \"2026-01-01\"\n"
	list, err := ParseExcuses([]byte(one+strings.ReplaceAll(one, "2026-01-01", "2025-12-31")), now)
	require.NoError(t, err)
	assert.Equal(t, []Excuse{{Machine: "m-web", Owner: "ann", Reason: "on a ship", Until: at(t, "2026-01-02T00:00:00Z")}}, list, "what has ended is left out")

	v := volumeAt(0)
	v.Name, v.Secret.Created = "m-web", now.AddDate(-2, 0, 0)
	plan, err := Make(State{Volumes: only(v), Excuses: list}, Default(), now)
	require.NoError(t, err)
	assert.EqualValues(t, 1, plan.Excused.Count, "by its name")
	assert.Zero(t, plan.Overdue.Count)

	for want, text := range map[string]string{
		"excuse 1: until: want a date":               strings.Replace(one, "2026-01-01", "soon", 1),
		"excuse 2: an excuse ends within":            one + strings.Replace(one, "2026-01-01", "2027-06-01", 1),
		"excuse 1: an excuse has an owner":           strings.Replace(one, "ann", "", 1),
		`unknown key "excuse.who": docs/rotation.md`: one + "who = \"x\"",
		"want a text in quotes":                      strings.Replace(one, `"ann"`, "7", 1),
	} {
		_, err := ParseExcuses([]byte(text), now)
		assert.ErrorContains(t, err, want)
	}
}

func FuzzParseExcuses(f *testing.F) {
	f.Add("[[excuse]]\nmachine = \"a\"\nowner = \"ann\"\nreason = \"on a ship\"\nuntil = \"2026-06-01\"\n")
	f.Add("[[excuse]]\nuntil = \"0001-01-01\"\n[[excuse]]\n")
	f.Add("excuse = 7")
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		list, err := ParseExcuses([]byte(text), now)
		if err != nil {
			assert.Empty(t, list)
		}
		for _, e := range list {
			assert.NoError(t, e.Check(now))
		}
	})
}

func TestExcusesHaveAnOwnerAReasonAndAnEnd(t *testing.T) {
	now := at(t, "2026-01-01T00:00:00Z")
	good := Excuse{Machine: "m", Owner: "ann", Reason: "on a ship", Until: now.Add(day)}
	require.NoError(t, good.Check(now))
	for want, spoil := range map[string]func(*Excuse){
		"say which":                                    func(e *Excuse) { e.Machine = "" },
		"has an owner, who answers for it, and":        func(e *Excuse) { e.Owner = "" },
		"and a reason: say both":                       func(e *Excuse) { e.Reason = "" },
		"have at most 500 bytes each":                  func(e *Excuse) { e.Reason = strings.Repeat("a", 501) },
		"an excuse ends within 366d: say when":         func(e *Excuse) { e.Until = now },
		"an excuse ends within 366d: say when, really": func(e *Excuse) { e.Until = now.Add(367 * day) },
	} {
		e := good
		spoil(&e)
		want, _, _ = strings.Cut(want, ", really")
		assert.ErrorContains(t, e.Check(now), want)
	}
}

// A machine that never answers has its order, and nobody waits for it.
func TestMachinesThatAreAwayHoldUpNobody(t *testing.T) {
	p := Default()
	p.Rules[0].Concurrency = 5
	now := at(t, "2026-01-01T00:00:00Z")
	volumes := func(yield func(Volume, error) bool) {
		for v := range someVolumes(100) {
			if !v.Connected {
				v.Order = Order{Kind: RekeyVolume, Opened: now.Add(-60 * day)}
			}
			if !yield(v, nil) {
				return
			}
		}
	}
	plan, err := Make(State{Volumes: volumes}, p, now)
	require.NoError(t, err)
	assert.Len(t, plan.Steps, 5)
	assert.Equal(t, Orders{Open: 5, Waiting: 5}, plan.Orders)
	assert.EqualValues(t, 100, plan.Overdue.Count)
}

func TestOrdersThatAreOpenAndThoseOfTheLastHourCount(t *testing.T) {
	now := at(t, "2026-01-01T00:00:00Z")
	for name, c := range map[string]struct {
		change func(*Volume)
		steps  int
		hold   Hold
	}{
		"nothing":            {func(*Volume) {}, 6, HoldConcurrency},
		"open":               {func(v *Volume) { v.Order = Order{Kind: RekeyVolume, Opened: now.Add(-day), Attempts: 2} }, 4, HoldConcurrency},
		"open for a boot":    {func(v *Volume) { v.Order = Order{Kind: RekeyVolume, Opened: now.Add(-day), AtBoot: true} }, 6, HoldConcurrency},
		"begun":              {func(v *Volume) { v.Secret = Secret{Version: 2, Created: now.Add(-59 * time.Minute)} }, 5, HoldRate},
		"begun earlier":      {func(v *Volume) { v.Secret = Secret{Version: 2, Created: now.Add(-time.Hour)} }, 6, HoldConcurrency},
		"enrolled":           {func(v *Volume) { v.Secret = Secret{Version: 1, Created: now.Add(-time.Minute)} }, 6, HoldConcurrency},
		"reencrypted lately": {func(v *Volume) { v.Secret.Created, v.Reencrypted = now, now }, 5, HoldRate},
	} {
		t.Run(name, func(t *testing.T) {
			p := Default()
			p.Rules[0].Concurrency, p.Rules[0].Rate = 6, Rate{7, time.Hour}
			volumes := func(yield func(Volume, error) bool) {
				n := 0
				for v := range someVolumes(100) {
					v.Connected = true
					if n++; n <= 2 {
						c.change(&v)
					}
					if !yield(v, nil) {
						return
					}
				}
			}
			plan, err := Make(State{Volumes: volumes}, p, now)
			require.NoError(t, err)
			assert.Len(t, plan.Steps, c.steps)
			assert.Equal(t, c.hold, plan.Lines[1].Hold)
		})
	}
}

func TestDisksAreReencryptedForTheirAgeOnlyWhereARuleSaysSo(t *testing.T) {
	now := at(t, "2026-11-28T00:00:00Z")
	v := volumeAt(1)
	v.Secret.Created = now.Add(-day)
	p := Default()
	plan, err := Make(State{Volumes: only(v)}, p, now)
	require.NoError(t, err)
	assert.Empty(t, plan.Lines)

	p.Rules[0].VolumeKeyAge = Age(730 * day)
	plan, err = Make(State{Volumes: only(v), Speed: Speed{Reencrypt: 1 << 30}}, p, now)
	require.NoError(t, err)
	require.Len(t, plan.Steps, 1)
	assert.Equal(t, ReencryptVolume, plan.Steps[0].Kind)
	assert.Equal(t, Cost{Guests: 1, Bytes: 1 << 34, Time: 16 * time.Second}, plan.Steps[0].Cost)
	assert.Equal(t, "its volume key is 1062d old: rule default has it replaced before 730d", plan.Steps[0].Reason)

	v.Secret.Created = v.Created
	plan, err = Make(State{Volumes: only(v)}, p, now)
	require.NoError(t, err)
	require.Len(t, plan.Steps, 1)
	assert.Equal(t, RekeyVolume, plan.Steps[0].Kind, "the keyslot comes first")

	v.Secret.Created, v.Connected = now, false
	plan, err = Make(State{Volumes: only(v)}, p, now)
	require.NoError(t, err)
	assert.Empty(t, plan.Steps)
	assert.Equal(t, HoldMachine, plan.Lines[0].Hold)
}

func TestSecretsAreKeptForRestoresAndNoLonger(t *testing.T) {
	now := at(t, "2026-11-28T00:00:00Z")
	v := volumeAt(1)
	v.Secret = Secret{Version: 4, Created: now.Add(-day)}
	v.RestoreOnly = []Retained{
		{Secret{Version: 1}, now.Add(-401 * day)},
		{Secret{Version: 2}, now.Add(-400 * day)},
		{Secret{Version: 3}, now.Add(-400*day + time.Second)},
		{Secret{Version: 4}, now.Add(-500 * day)}, // a state that must not be
	}
	plan, err := Make(State{Volumes: only(v)}, Default(), now)
	require.NoError(t, err)
	require.Len(t, plan.Steps, 2)
	assert.Equal(t, "destroy-secret volume/00000000000000000000000000000001@1", plan.Steps[0].String())
	assert.Equal(t, volumeObject(v.ID, 2), plan.Steps[1].Object)
	assert.Equal(t, "another secret took its place 401d ago: rule default keeps it for restores for 400d", plan.Steps[0].Reason)

	// A disk from then was put back, and is opened with it until it is rekeyed.
	v.Order = Order{Kind: RekeyVolume, From: 1}
	plan, err = Make(State{Volumes: only(v)}, Default(), now)
	require.NoError(t, err)
	require.Len(t, plan.Steps, 1)
	assert.Equal(t, volumeObject(v.ID, 2), plan.Steps[0].Object)
	assert.Contains(t, plan.Lines, Line{DefaultRule, DestroySecret, HoldOrder, 1, Cost{}, 0})

	// One is about to be.
	v.Order, v.RestoreUntil = Order{}, now.Add(time.Second)
	plan, err = Make(State{Volumes: only(v)}, Default(), now)
	require.NoError(t, err)
	assert.Empty(t, plan.Steps)
	assert.Contains(t, plan.Lines, Line{DefaultRule, DestroySecret, HoldRestore, 2, Cost{}, 0})
	chain, err := Compromised(State{Volumes: only(v)}, Default(), now, Incident{What: Reference{VolumeOut, v.ID, 0}, Since: now})
	require.NoError(t, err)
	assert.Contains(t, chain.Lines, Line{DefaultRule, DestroySecret, HoldRestore, 3, Cost{}, 0})
	assert.EqualValues(t, 1, chain.UnopenableCount, "the current one alone, after its rekey")
}

// What a plan allocates is bounded by its rules, however many volumes are due.
func TestMemoryDoesNotGrowWithTheVolumes(t *testing.T) {
	p := Default()
	allocated := func(count int) float64 {
		list := make([]Volume, 0, count)
		for v := range someVolumes(count) {
			list = append(list, v)
		}
		state := State{Volumes: only(list...), Keyrings: someKeyrings(list[0].Created, int64(count))}
		now := at(t, "2026-01-01T00:00:00Z")
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Make(state, p, now)
		require.NoError(t, err)
		_, err = Compromised(state, p, now, Incident{What: Reference{KeyringOut, "default", 1}, Since: now, Copied: true})
		require.NoError(t, err)
		runtime.ReadMemStats(&after)
		return float64(after.TotalAlloc - before.TotalAlloc)
	}
	assert.InDelta(t, allocated(20_000), allocated(40_000), 1<<19, "bytes")
}

func TestStepsOfAKeyring(t *testing.T) {
	now := at(t, "2026-11-28T00:00:00Z")
	old, young := now.Add(-400*day), now.Add(-day)
	version := func(n uint32, status kms.KeyringStatus, made time.Time) kms.KeyringVersion {
		return kms.KeyringVersion{Keyring: "k", Version: n, Status: status, Created: made, Changed: made}
	}
	on := func(n uint32, kind kms.DependentKind, count int64) kms.Dependents {
		return kms.Dependents{Keyring: "k", Version: n, Kind: kind, Count: count}
	}
	const enabled, disabled, scheduled = kms.KeyringEnabled, kms.KeyringDisabled, kms.KeyringScheduled
	for name, c := range map[string]struct {
		keyring kms.Keyring
		want    []string
	}{
		"young":                   {kms.Keyring{Current: 1, Versions: []kms.KeyringVersion{version(1, enabled, young)}}, nil},
		"old":                     {kms.Keyring{Current: 1, Versions: []kms.KeyringVersion{version(1, enabled, old)}}, []string{"rotate-keyring keyring/k"}},
		"none that wraps":         {kms.Keyring{Versions: []kms.KeyringVersion{version(1, disabled, young)}}, []string{"rotate-keyring keyring/k"}},
		"rotate before rewrap":    {kms.Keyring{Current: 2, Versions: []kms.KeyringVersion{version(1, enabled, old), version(2, enabled, old)}, Dependents: []kms.Dependents{on(1, kms.DependentSecret, 3)}}, []string{"rotate-keyring keyring/k"}},
		"rewrap before disable":   {kms.Keyring{Current: 2, Versions: []kms.KeyringVersion{version(1, enabled, old), version(2, enabled, young)}, Dependents: []kms.Dependents{on(1, kms.DependentServiceKey, 3)}}, []string{"rewrap-keyring keyring/k"}},
		"disable before destroy":  {kms.Keyring{Current: 2, Versions: []kms.KeyringVersion{version(1, enabled, old), version(2, enabled, young)}}, []string{"disable-keyring-version keyring/k@1"}},
		"destroy":                 {kms.Keyring{Current: 2, Versions: []kms.KeyringVersion{version(1, disabled, old), version(2, enabled, young)}}, []string{"destroy-keyring-version keyring/k@1"}},
		"scheduled":               {kms.Keyring{Current: 2, Versions: []kms.KeyringVersion{version(1, scheduled, old), version(2, enabled, young)}}, nil},
		"ciphertexts elsewhere":   {kms.Keyring{Current: 2, Versions: []kms.KeyringVersion{version(1, enabled, old), version(2, enabled, young)}, Dependents: []kms.Dependents{on(1, kms.DependentOutside, 1)}}, []string{"disable-keyring-version keyring/k@1"}},
		"and are kept":            {kms.Keyring{Current: 2, Versions: []kms.KeyringVersion{version(1, disabled, old), version(2, enabled, young)}, Dependents: []kms.Dependents{on(1, kms.DependentOutside, 1)}}, nil},
		"a newer one is disabled": {kms.Keyring{Current: 1, Versions: []kms.KeyringVersion{version(1, enabled, young), version(2, disabled, young)}, Dependents: []kms.Dependents{on(2, kms.DependentSecret, 1)}}, []string{"rewrap-keyring keyring/k"}},
	} {
		t.Run(name, func(t *testing.T) {
			c.keyring.Name = "k"
			plan, err := Make(State{Keyrings: []kms.Keyring{c.keyring}, Volumes: only(), Speed: Speed{Roots: 2, Rewraps: 2}}, Default(), now)
			require.NoError(t, err)
			var got []string
			for _, s := range plan.Steps {
				got = append(got, s.String())
				switch s.Kind {
				case RotateKeyring:
					assert.Equal(t, Cost{RootCalls: 4}, s.Cost)
				case RewrapKeyring:
					assert.Equal(t, Cost{Rows: c.keyring.Dependents[0].Count, Time: time.Duration((c.keyring.Dependents[0].Count+1)/2) * time.Second}, s.Cost)
				case DestroyKeyringVersion:
					assert.Equal(t, 30*day, s.Wait)
				}
			}
			assert.Equal(t, c.want, got)
		})
	}
}

func TestWorkWaitsForItsWindow(t *testing.T) {
	p, err := Parse([]byte("[default]\nwindows = [{ opens = \"0 22 * * *\", zone = \"UTC\", lasts = \"1h\" }]\n"))
	require.NoError(t, err)
	now := at(t, "2026-11-28T12:00:00Z")
	state := State{Keyrings: someKeyrings(at(t, "2024-01-01T00:00:00Z"), 1), Volumes: someVolumes(2)}
	plan, err := Make(state, p, now)
	require.NoError(t, err)
	require.Len(t, plan.Steps, 3)
	for _, s := range plan.Steps {
		assert.Equal(t, at(t, "2026-11-28T22:00:00Z"), s.NotBefore)
	}

	p.Rules[0].Windows[0].Opens = "0 0 30 2 *"
	plan, err = Make(state, p, now)
	require.NoError(t, err)
	assert.Empty(t, plan.Steps)
	require.Len(t, plan.Lines, 2)
	for _, l := range plan.Lines {
		assert.Equal(t, HoldWindow, l.Hold)
	}
}

func TestAReadThatFailsMakesNoPlan(t *testing.T) {
	broken := errors.New("broken")
	volumes := func(yield func(Volume, error) bool) { yield(Volume{}, broken) }
	_, err := Make(State{Volumes: volumes}, Default(), time.Time{})
	require.ErrorIs(t, err, broken)
	_, err = Compromised(State{Volumes: volumes}, Default(), time.Time{}, Incident{What: Reference{MachineOut, "m", 0}})
	require.ErrorIs(t, err, broken)
}

func only(volumes ...Volume) func(yield func(Volume, error) bool) {
	return func(yield func(Volume, error) bool) {
		for _, v := range volumes {
			if !yield(v, nil) {
				return
			}
		}
	}
}

// volumeAt is one of someVolumes.
func volumeAt(index int) Volume {
	for v := range someVolumes(index + 1) {
		if index--; index < 0 {
			return v
		}
	}
	panic("unreachable")
}
