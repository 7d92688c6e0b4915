package kms

import (
	"context"
	"time"

	"keywright.dev/kms/attest"
)

// The actions by which an operator lets a machine in again.
const (
	ActionReadmit       = "machine.readmit"
	ActionExpectRestore = "machine.expect_restore"
)

const (
	// readmitFor is how long a readmission waits for the release that uses it up.
	readmitFor = 7 * 24 * time.Hour
	// reenrollFor is how long a machine that is known may enrol again.
	reenrollFor = 24 * time.Hour
	// maxFormer bounds the former volumes of a machine that may enrol once more:
	// each release reads past them.
	maxFormer = 256
	// MaxRestoreWait bounds how far ahead a restore can be announced.
	MaxRestoreWait = 7 * 24 * time.Hour
)

// Readmission is how a machine is let in again.
type Readmission struct {
	Reason string // for the audit log
	// Reenroll lets the machine enrol again with the same TPM, and nothing else:
	// until it does, it stays what it is.
	Reenroll bool
}

// ReadmitMachine lets the machine's next release set new counters, whatever they
// are, and lifts a revocation; or lets the machine enrol again.
func (s *Service) ReadmitMachine(ctx context.Context, by Operator, ref string, r Readmission) (*Machine, error) {
	return s.changeMachine(ctx, by, ref, Key{}, ActionReadmit, func(state *State, d *draft) (Machine, error) {
		m := *state.Machine
		now := s.Clock()
		if r.Reenroll {
			if n := len(state.Volumes) - len(presentVolumes(state.Volumes)); n >= maxFormer {
				return m, disallow("it has %d former volumes: give it a new vTPM at the hypervisor and enrol it as another machine", n)
			}
			m.ReenrollUntil = now.Add(reenrollFor)
			d.fact("reenroll.until", "", formatTime(m.ReenrollUntil))
		} else {
			m.readmit(now)
			d.fact("status", string(state.Machine.Status), string(m.Status))
			d.fact("readmit.until", "", formatTime(m.ReadmitUntil))
		}
		d.fact("tpm.counters", formatCounters(m.Counters), "")
		d.fact("reason", "", r.Reason)
		return m, nil
	})
}

// readmit gives a machine that is revoked the status that it had.
func (m *Machine) readmit(now time.Time) {
	m.ReadmitUntil, m.Regressed = now.Add(readmitFor), false
	switch {
	case m.Status != MachineRevoked:
	case m.Approved.IsZero():
		m.Status = MachinePending
	default:
		m.Status = MachineActive
	}
}

// ExpectRestore lets one release have counters that went back, if it comes before
// until.
func (s *Service) ExpectRestore(ctx context.Context, by Operator, ref string, until time.Time, reason string) (*Machine, error) {
	now := s.Clock()
	switch {
	case !until.After(now):
		return nil, usage("the time until which the restore is expected is over: give one that is to come")
	case until.Sub(now) > MaxRestoreWait:
		return nil, usage("a restore can be announced for at most %d days: give an earlier time", MaxRestoreWait/(24*time.Hour))
	}
	return s.changeMachine(ctx, by, ref, Key{}, ActionExpectRestore, func(state *State, d *draft) (Machine, error) {
		m := *state.Machine
		if m.Status != MachineActive {
			return m, disallow("it is %s: only a machine that gets keys can be restored to an earlier state", m.Status)
		}
		m.RestoreUntil = until
		d.fact("restore.until", "", formatTime(until))
		d.fact("tpm.counters", formatCounters(m.Counters), "")
		d.fact("reason", "", reason)
		return m, nil
	})
}

// baselineBy names the act of an operator that lets c be the machine's new
// counters; empty where none does.
func (m *Machine) baselineBy(c Counters, now time.Time) string {
	switch {
	case now.Before(m.ReadmitUntil):
		return ActionReadmit
	case now.Before(m.RestoreUntil) && c.Since(m.Counters) == attest.Regression:
		return ActionExpectRestore
	default:
		return ""
	}
}

// wentBack tells whether counters are behind the machine's and no operator lets
// them be.
func (m *Machine) wentBack(c Counters, now time.Time) bool {
	return c.Since(m.Counters) == attest.Regression && m.baselineBy(c, now) == ""
}

// rebase makes c the machine's counters, and uses up what let them be.
func (m *Machine) rebase(c Counters) {
	if c.Since(m.Counters) == attest.Regression {
		m.RestoreUntil = time.Time{}
	}
	m.Counters, m.Regressed, m.ReadmitUntil = c, false, time.Time{}
}

// mayReenroll tells whether a machine that is known may enrol again.
func (m *Machine) mayReenroll(now time.Time) bool { return now.Before(m.ReenrollUntil) }

func formatTime(t time.Time) string { return t.UTC().Format(time.RFC3339) }
