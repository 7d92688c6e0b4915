package kms

import (
	"context"
	"fmt"
	"time"

	"keywright.dev/kms/audit"
)

// Revocation says when a machine was revoked, by whom, and why.
type Revocation struct {
	Time   time.Time
	By     string // id of the operator
	Reason string // may be empty
}

// revocations bounds the entries that are searched for the one that counted: a
// revoked machine can be revoked again.
const revocations = 32

// Revocation reads from the audit log how a machine came to be revoked; nil for
// one that is not.
func (s *Service) Revocation(ctx context.Context, m *Machine) (*Revocation, error) {
	if m.Status != MachineRevoked {
		return nil, nil
	}
	found, err := s.Store.LatestEntries(ctx, m.ID, ActionRevoke, revocations)
	if err != nil {
		return nil, fmt.Errorf("reading the revocation of machine/%s: %w", m.ID, err)
	}
	var r *Revocation
	for _, f := range found {
		entry, err := s.openEntry(f.Signed)
		if err != nil {
			return nil, fmt.Errorf("reading the revocation of machine/%s: %w", m.ID, err)
		}
		r = &Revocation{Time: entry.Time, By: entry.Actor.ID, Reason: factOf(entry, "reason").Is}
		if factOf(entry, "status").Was != string(MachineRevoked) {
			break
		}
	}
	return r, nil
}

func factOf(e audit.Entry, name string) audit.Fact {
	for _, f := range e.Facts {
		if f.Name == name {
			return f
		}
	}
	return audit.Fact{}
}

// String returns a clause for people.
func (r *Revocation) String() string {
	text := fmt.Sprintf("it was revoked at %s by %s", r.Time.UTC().Format("2006-01-02 15:04:05Z"), r.By)
	if r.Reason == "" {
		return text
	}
	return text + ": " + r.Reason
}
