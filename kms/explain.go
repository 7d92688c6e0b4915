package kms

import (
	"context"
	"fmt"

	"keywright.dev/kms/audit"
	"keywright.dev/kms/claims"
	"keywright.dev/kms/exchange"
)

// Explanation says how a machine's last request ended, why, and what to do.
type Explanation struct {
	Machine *Machine
	// Last is the newest entry that the machine caused, beyond those that only say
	// that it runs; nil before the first.
	Last *audit.Entry
	// Index is its leaf index in the audit log, or -1.
	Index   int64
	Summary string
	Advice  string
	// Differences are the facts that decided, was and is.
	Differences []claims.Difference
}

// explained bounds the entries that are searched for the one to explain.
const explained = 32

// Explain explains the last release or refusal of a machine. A system that runs
// without keys announces in vain each day: why its boot got none is told.
func (s *Service) Explain(ctx context.Context, ref string) (*Explanation, error) {
	m, err := s.FindMachine(ctx, ref)
	if err != nil {
		return nil, err
	}
	x := &Explanation{Machine: m, Index: -1}
	telling, err := s.search(ctx, x, "", explained)
	if err == nil && !telling && x.Last != nil && x.Last.Action == ActionKeyUse {
		// Applications ask as often as they like.
		_, err = s.search(ctx, x, ActionRelease, 1)
	}
	if err != nil {
		return nil, fmt.Errorf("explaining machine/%s: %w", m.ID, err)
	}
	revoked, err := s.Revocation(ctx, m)
	if err != nil {
		return nil, err
	}
	x.tell()
	if revoked != nil {
		x.Summary += "; " + revoked.String()
	}
	return x, nil
}

// search looks for the newest entry that the machine caused, and for one that
// tells more than an incidental one, which it says that it found.
func (s *Service) search(ctx context.Context, x *Explanation, action string, limit int) (telling bool, err error) {
	found, err := s.Store.LatestEntries(ctx, x.Machine.ID, action, limit)
	if err != nil {
		return false, err
	}
	for _, f := range found {
		entry, err := s.openEntry(f.Signed)
		if err != nil {
			return false, err
		}
		if entry.Actor.Kind != audit.ActorMachine {
			continue
		}
		telling = !incidental(&entry)
		if x.Last == nil || telling {
			x.Last, x.Index = &entry, f.Index
		}
		if telling {
			return true, nil
		}
	}
	return false, nil
}

// incidental tells whether an entry hides the one that is wanted: a machine that
// runs announces its boots each day, and uses keys for its applications, and is
// refused to where its last boot had no keys. Why it had none is in the entry of that boot.
func incidental(e *audit.Entry) bool {
	return (e.Action == ActionStage || e.Action == ActionKeyUse) && (e.Outcome == audit.Allowed || e.Code == string(ReasonUnreleased))
}

// openEntry verifies an entry before anything of it is believed.
func (s *Service) openEntry(signed []byte) (audit.Entry, error) {
	return s.Log.Verifier().Verify(signed)
}

// tell puts the last entry and the machine's state now into words.
func (x *Explanation) tell() {
	name := x.Machine.Name
	if name == "" {
		name = exchange.ShortID(x.Machine.ID)
	}
	switch {
	case x.Last == nil:
		x.Summary = fmt.Sprintf("machine/%s has asked for nothing that is still in reach of this search", name)
	case x.Last.Outcome == audit.Refused:
		x.Summary = fmt.Sprintf("machine/%s was refused at %s: %s", name, x.Last.Time.UTC().Format("2006-01-02 15:04:05Z"), x.detail())
		x.Advice = x.advice(name)
	case x.Last.Action == ActionRelease:
		x.Summary = fmt.Sprintf("machine/%s received its keys at %s", name, x.Last.Time.UTC().Format("2006-01-02 15:04:05Z"))
	default:
		x.Summary = fmt.Sprintf("machine/%s is %s; its last act was %s", name, x.Machine.Status, x.Last.Action)
		if x.Machine.Status == MachinePending {
			x.Advice = x.pendingAdvice(name)
		}
	}
}

// detail takes the refusal's sentence out of the facts; the rest differed.
func (x *Explanation) detail() string {
	detail := x.Last.Code
	for _, f := range x.Last.Facts {
		if f.Name == "detail" {
			detail = f.Is
			continue
		}
		x.Differences = append(x.Differences, claims.Difference{Name: f.Name, Was: f.Was, Is: f.Is})
	}
	return detail
}

func (x *Explanation) advice(name string) string {
	switch Reason(x.Last.Code) {
	case ReasonPending:
		return x.pendingAdvice(name)
	case ReasonMeasurement:
		if x.is("measurement") == "" {
			return "" // a boot that could not be predicted is none to approve
		}
		return fmt.Sprintf("if you made this change: keywright measurement approve %s --group %s", x.is("measurement"), x.Machine.Group)
	case ReasonPlatform:
		return fmt.Sprintf("if you made this change: keywright machine approve %s --platform %s", name, x.is("platform"))
	case ReasonCounters:
		return fmt.Sprintf("if you restored the machine from a snapshot or a backup: keywright machine readmit %s. ", name) +
			"If it is a clone that has a copy of the vTPM, give the clone a new vTPM at the hypervisor and enrol it. " +
			"If neither happened, a copy of its TPM is running: find it before anything else"
	case ReasonRestored:
		return fmt.Sprintf("if you put an image of the disk back: keywright machine expect-restore %s --until 1h --reason TEXT. ", name) +
			"If nobody did, find out who could write to the disk"
	case ReasonRevoked:
		return fmt.Sprintf("a revoked machine gets no keys; if the revocation is over: keywright machine readmit %s", name)
	case ReasonReleased:
		return "restart the machine: each boot gets its keys once"
	case ReasonVolume:
		return "compare the disk that is attached with the one that was enrolled: keywright volume list"
	case ReasonServiceKey:
		return "the machine trusts another service: compare the pin in its initramfs with keywright status"
	case ReasonEnrolled:
		return "if the vTPM was copied with a clone of the VM, give the clone a new one at the hypervisor and enrol it again. " +
			fmt.Sprintf("If it is the machine itself, with a new disk or after keywright-unlock leave: keywright machine readmit %s --re-enroll", name)
	default:
		return ""
	}
}

// is returns what a fact of the last entry is now.
func (x *Explanation) is(name string) string {
	return factOf(*x.Last, name).Is
}

// pendingAdvice is about a machine that waits, or waited when it was refused.
func (x *Explanation) pendingAdvice(name string) string {
	switch {
	case x.Machine.Status != MachinePending:
		return ""
	case !x.Machine.Committed:
		return "its enrolment is not finished: run keywright-unlock enroll on it again"
	default:
		return fmt.Sprintf("compare the EK hash with the hypervisor's, then: keywright machine approve %s --ek-hash HASH", name)
	}
}
