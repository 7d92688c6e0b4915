package rotate

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"

	"keywright.dev/kms"
)

// maxSuperseded bounds the measurements of one group that a plan looks at.
const maxSuperseded = 64

// MeasurementRows are the store as plans read what groups may boot.
type MeasurementRows interface {
	MeasurementGroups(ctx context.Context) ([]string, error)
	OldestApproved(ctx context.Context, group string, limit int) ([]kms.Measurement, error)
	Holding(ctx context.Context, h kms.Hold) (kms.Holding, error)
}

// Measurement is one that newer ones took the place of.
type Measurement struct {
	Digest   [32]byte
	Group    string
	Approved time.Time
	// Boots is how many good boots of newer ones each machine of the group had, at
	// least.
	Boots int
}

// Superseded returns the approved measurements that the policy wants retired and that
// nothing holds. Of each group those that were approved first are looked at first, up
// to the first one that something holds: it holds the later ones as well. pause is
// called before each group.
func Superseded(ctx context.Context, rows MeasurementRows, policy *Policy, pause kms.Pause) (list []Measurement, err error) {
	groups, err := rows.MeasurementGroups(ctx)
	if err != nil {
		return nil, err
	}
	for _, group := range groups {
		boots := policy.forGroup(group).RetireMeasurementsAfter
		if boots == 0 {
			continue
		}
		if _, err := pause(ctx); err != nil {
			return nil, err
		}
		if list, err = appendSuperseded(ctx, list, rows, group, boots); err != nil {
			return nil, fmt.Errorf("looking for measurements of group %s to retire: %w", group, err)
		}
	}
	return list, nil
}

func appendSuperseded(ctx context.Context, list []Measurement, rows MeasurementRows, group string, boots int) ([]Measurement, error) {
	approved, err := rows.OldestApproved(ctx, group, maxSuperseded)
	if err != nil {
		return nil, err
	}
	for i := range approved {
		m := &approved[i]
		holding, err := rows.Holding(ctx, kms.Hold{Group: group, Digest: m.Digest, Approved: m.Approved, Boots: boots, Limit: 1})
		if err != nil {
			return nil, err
		}
		if !holding.Free() {
			break
		}
		list = append(list, Measurement{m.Digest, group, m.Approved, boots})
	}
	return list, nil
}

// measurement plans that one which nothing holds is retired.
func (p *planner) measurement(m Measurement) {
	r := p.policy.forGroup(m.Group)
	notBefore, opens := r.notBefore(p.now)
	s := Step{
		Action: Action{RetireMeasurement, Object{Type: typeMeasurement, Name: hex.EncodeToString(m.Digest[:]), Group: m.Group}},
		Boots:  m.Boots, Rule: r.Name, Due: p.now, NotBefore: notBefore,
		Reason: fmt.Sprintf("each machine of group %s had its last %d good boots with newer ones", m.Group, m.Boots),
	}
	switch {
	case !opens:
		p.lines.add(s.Rule, s.Kind, HoldWindow, tally{1, s.Cost})
	case p.measurements == maxPlan:
		p.lines.add(s.Rule, s.Kind, HoldPlan, tally{1, s.Cost})
	default:
		p.measurements++
		p.step(s)
	}
}
