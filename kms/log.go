package kms

import (
	"context"
	"fmt"

	"keywright.dev/kms/audit"
)

// sequenceBatch bounds the entries that one transaction puts into the tree.
const sequenceBatch = 4096

// Sequence puts entries that wait into the audit log's tree and signs a new
// head over them. It returns how many it took: as long as that is not zero,
// more may wait. A tree that somebody changed is audit.ErrTreeChanged, and is
// never signed again.
func (s *Service) Sequence(ctx context.Context) (int, error) {
	n, err := s.Store.Sequence(ctx, sequenceBatch, s.extend)
	if err != nil {
		return 0, fmt.Errorf("sequencing the audit log: %w", err)
	}
	return n, nil
}

func (s *Service) extend(head []byte, hashes audit.HashReader, leaves []audit.Hash) (Sequenced, error) {
	tree := audit.EmptyTree()
	if len(head) > 0 {
		var err error
		if tree, err = s.Log.Verifier().OpenHead(head); err != nil {
			return Sequenced{}, err
		}
	}
	appended, err := audit.Append(hashes, tree, leaves)
	if err != nil {
		return Sequenced{}, err
	}
	next, err := s.Log.SignHead(appended.Tree)
	if err != nil {
		return Sequenced{}, err
	}
	return Sequenced{Appended: appended, Head: next}, nil
}

// Record enters an act of an operator that changes no row of the domain, such as
// an export.
func (s *Service) Record(ctx context.Context, by Operator, action, object string, outcome audit.Outcome, facts ...audit.Fact) error {
	d := by.draft(action, "", object)
	d.facts = facts
	return s.record(ctx, d, outcome, nil)
}

// RecordDenied enters an operator's request that policy refused.
func (s *Service) RecordDenied(ctx context.Context, by Operator, action, object string) error {
	return s.record(ctx, by.draft(action, "", object), audit.Refused, refuse(ReasonPolicy, "no policy permits it"))
}

func (s *Service) record(ctx context.Context, d draft, outcome audit.Outcome, refusal *Refusal) error {
	err := s.Store.Transact(ctx, Key{}, func(State) (Outcome, error) {
		return s.entered(Outcome{}, d, outcome, refusal)
	})
	if err != nil {
		return fmt.Errorf("recording %s: %w", d.action, err)
	}
	return nil
}
