package kms_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/test/sim"
)

// life is what happens to one machine, at random but repeatable.
type life struct {
	*fixture
	t      *testing.T
	random *rand.Rand
	m      *sim.Machine
	// past are the states of its TPM in which it got its keys, just before.
	past []*sim.TPM
}

func newLife(t *testing.T, seed uint64) *life {
	t.Helper()
	f := newFixture(t)
	l := &life{fixture: f, t: t, random: rand.New(rand.NewPCG(seed, 0)), m: f.active("web-17")}
	l.unlocks()
	return l
}

// unlocks has the machine ask for its keys, which it gets.
func (l *life) unlocks() {
	l.t.Helper()
	l.past = append(l.past, l.m.TPM.Snapshot())
	_, err := l.m.Unlock(l.t.Context(), l.guest())
	require.NoError(l.t, err, "%+v after %+v", l.m.TPM.Clock, l.row(l.m).Counters)
}

// asks has the machine ask in a boot that may have had the keys: that, and not
// the counters, is what it is refused for then.
func (l *life) asks() {
	l.t.Helper()
	if fifteen, _ := l.m.TPM.PCRs.Value(15); fifteen == [32]byte{} {
		l.unlocks()
		return
	}
	_, err := l.m.Unlock(l.t.Context(), l.guest())
	refused(l.t, kms.ReasonReleased, err)
}

// losesAnAnswer has the machine ask twice, since the first answer did not arrive.
func (l *life) losesAnAnswer() {
	l.t.Helper()
	l.m.Boot()
	before := l.m.TPM.PCRs
	l.unlocks()
	l.m.TPM.PCRs = before
	l.unlocks()
}

// goesOn does one of the things that happen to a machine whose TPM is not copied.
func (l *life) goesOn() {
	l.t.Helper()
	l.clock.Advance(time.Minute)
	l.m.TPM.Pass(l.random.Uint64N(uint64(time.Hour.Milliseconds())) + uint64(4*time.Minute.Milliseconds()))
	switch l.random.IntN(7) {
	case 0:
		l.m.Boot()
		l.unlocks()
	case 1:
		l.m.TPM.Crash(l.m.Log)
		l.unlocks()
	case 2:
		l.m.TPM.Restart(l.m.Log)
		l.unlocks()
	case 3:
		l.m.TPM.Resume()
		l.asks()
	case 4: // it moves to another host, with its TPM's state
		l.m.TPM = l.m.TPM.Snapshot()
		l.asks()
	case 5: // boots that the service does not hear of
		l.m.Boot()
		l.m.TPM.Crash(l.m.Log)
	case 6:
		l.losesAnAnswer()
	}
}

// replayed has a copy of an earlier state ask, after these changes to it.
func (l *life) replayed(tpm *sim.TPM, changes ...func(*sim.TPM)) error {
	l.t.Helper()
	l.clock.Advance(time.Minute)
	copied := *l.m
	copied.TPM, copied.Volumes = tpm.Snapshot(), slices.Clone(l.m.Volumes)
	for _, change := range changes {
		change(copied.TPM)
	}
	_, err := copied.Unlock(l.t.Context(), l.guest())
	return err
}

func (l *life) cold(tpm *sim.TPM)  { tpm.Boot(l.m.Log) }
func (l *life) crash(tpm *sim.TPM) { tpm.Crash(l.m.Log) }

const (
	lives = 8
	steps = 25
)

// TestHonestMachineIsNeverTakenForACopy lets a machine reset, restart, resume,
// move and lose its power in any order, with and without asking for its keys.
func TestHonestMachineIsNeverTakenForACopy(t *testing.T) {
	for seed := range uint64(lives) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			l := newLife(t, seed)
			for range steps {
				l.goesOn()
			}
		})
	}
}

// TestAttack15EveryEarlierStateIsRefused replays, at every step of a machine's
// life, states in which it got its keys before the last that the service has seen.
// The machine itself goes on.
func TestAttack15EveryEarlierStateIsRefused(t *testing.T) {
	for seed := range uint64(lives) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			l := newLife(t, seed)
			for range steps {
				l.goesOn()
				if earlier := len(l.past) - 1; earlier > 0 {
					l.isRefused(l.past[l.random.IntN(earlier)])
				}
			}
		})
	}
}

// isRefused replays an earlier state as it was saved, running; later, where other
// boots followed; and booted, where that makes it no newer.
func (l *life) isRefused(earlier *sim.TPM) {
	l.t.Helper()
	seen := l.row(l.m).Counters
	refused(l.t, kms.ReasonCounters, l.replayed(earlier))
	was := earlier.Clock
	if was.ResetCount < seen.ResetCount || was.RestartCount < seen.RestartCount {
		later := func(tpm *sim.TPM) { tpm.Pass(uint64(1000 * time.Hour.Milliseconds())) }
		refused(l.t, kms.ReasonCounters, l.replayed(earlier, later))
	}
	if was.ResetCount+1 < seen.ResetCount {
		refused(l.t, kms.ReasonCounters, l.replayed(earlier, l.cold))
		refused(l.t, kms.ReasonCounters, l.replayed(earlier, l.crash))
	}
	assert.Equal(l.t, seen, l.row(l.m).Counters, "a copy moves no counters")
}

// TestAttack15LimitOfTheCounters says what counters cannot tell: a copy that was
// restarted as often as the original, and asks later by its own clock, is as new
// as that. It is then the original that is behind.
func TestAttack15LimitOfTheCounters(t *testing.T) {
	l := newLife(t, 0)
	off := l.m.TPM.Snapshot()
	l.m.Boot()
	l.unlocks()
	require.NoError(t, l.replayed(off, l.cold, func(tpm *sim.TPM) { tpm.Pass(1000) }))

	l.m.Boot()
	l.unlocks()
	refused(t, kms.ReasonCounters, l.replayed(off, l.cold))
	require.NoError(t, l.replayed(off, l.cold, l.cold, l.cold))
	_, err := l.m.Unlock(t.Context(), l.guest())
	refused(t, kms.ReasonCounters, err)
}
