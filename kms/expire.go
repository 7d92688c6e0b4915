package kms

import (
	"context"
	"fmt"
	"time"

	"keywright.dev/kms/audit"
)

const (
	// uncommittedFor is how long an enrolment may take, from its first secret to
	// its commit.
	uncommittedFor = 24 * time.Hour
	// unapprovedFor is how long a machine waits for an operator.
	unapprovedFor = 30 * 24 * time.Hour
	// expirePage is how many machines are looked at in one query.
	expirePage = 256
)

// ActionExpire is the service's: it forgets a machine that nobody approved.
const ActionExpire = "machine.expire"

// ExpirePending forgets the machines whose enrolment was not committed within 24
// hours, and those that nobody approved within 30 days, with all that was kept
// of them: who makes keys of his own can't hold the room for those that wait.
// The machine may enrol again; what opens its disk meanwhile is the passphrase.
func (s *Service) ExpirePending(ctx context.Context) error {
	after := ""
	for {
		page, err := s.Store.Machines(ctx, MachineFilter{Status: MachinePending}, after, expirePage)
		if err != nil {
			return fmt.Errorf("looking for machines that expired: %w", err)
		}
		for i := range page {
			if !s.expired(&page[i]) {
				continue
			}
			if err := s.forget(ctx, page[i].ID); err != nil {
				return fmt.Errorf("forgetting machine/%s: %w", page[i].ID, err)
			}
		}
		if len(page) < expirePage {
			return nil
		}
		after = page[len(page)-1].ID
	}
}

// expired tells whether a machine waited for too long. One that an operator named
// enrols again: what is known of it is not forgotten by itself.
func (s *Service) expired(m *Machine) bool {
	limit := unapprovedFor
	if !m.Committed {
		limit = uncommittedFor
	}
	return m.Status == MachinePending && m.Name == "" && s.Clock().Sub(m.Created) >= limit
}

// forget drops a machine unless it was approved meanwhile.
func (s *Service) forget(ctx context.Context, id string) error {
	return s.Store.Transact(ctx, Key{Machine: id}, func(state State) (Outcome, error) {
		if state.Machine == nil || !s.expired(state.Machine) {
			return Outcome{}, nil
		}
		d := draft{
			action: ActionExpire, machine: id, object: machineObject(id),
			actor: audit.Actor{Kind: audit.ActorService, ID: "upkeep"},
		}
		d.fact("status", string(state.Machine.Status), "")
		d.fact("enrolled", state.Machine.Created.UTC().Format(time.RFC3339), "")
		return s.entered(Outcome{DropMachine: id}, d, audit.Done, nil)
	})
}
