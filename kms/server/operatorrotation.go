package server

import (
	"context"
	"math"
	"net/http"
	"strings"
	"time"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
	"keywright.dev/rotate"
)

const (
	// maxAhead bounds how far ahead a plan is made.
	maxAhead = 10 * 366 * 24 * time.Hour
	// maxLateListed bounds what an answer lists of what is late.
	maxLateListed = 100
	// rewrapsPerSecond is what plans reckon with: see docs/performance.md.
	rewrapsPerSecond = 8000
)

type planInput struct {
	At    time.Time `query:"at" doc:"The moment that the plan is made for, in the form of RFC 3339; now without it."`
	Limit int       `query:"limit" minimum:"1" maximum:"5000" default:"1000" doc:"The most steps to list."`
}

func (o *operators) addRotation() {
	register(o, operation[planInput, struct{}, api.RotationPlan]{
		Route: Route{
			Method: http.MethodGet, Path: api.PathRotationPlan, Action: "rotation.plan",
			Summary: "Plan what is due of keyrings' versions and of volumes' keys; nothing is changed.",
		},
		find: nothing[planInput], act: o.plan,
	})
}

func (o *operators) plan(ctx context.Context, _ struct{}, in *planInput) (api.RotationPlan, error) {
	s := o.server
	now := s.Clock()
	at := in.At
	switch {
	case at.IsZero():
		at = now
	case at.Before(now.Add(-time.Minute)) || at.After(now.Add(maxAhead)):
		return api.RotationPlan{}, &kms.UsageError{Text: "a plan is made for now or for a moment within ten years"}
	}
	state, err := s.rotationState(ctx, now)
	if err != nil {
		return api.RotationPlan{}, err
	}
	plan, err := s.duePlan(ctx, &state, now, at)
	if err != nil {
		return api.RotationPlan{}, err
	}
	answer := planOf(plan, in.Limit)
	return answer, s.nameLost(ctx, answer.Steps)
}

// nameLost names the keyslots that reencryptions take away, before anybody orders them.
func (s *Server) nameLost(ctx context.Context, steps []api.RotationStep) error {
	for i := range steps {
		if steps[i].Kind != string(rotate.ReencryptVolume) {
			continue
		}
		found, err := s.Store.FindVolumes(ctx, strings.TrimPrefix(steps[i].Object, "volume/"), 1)
		if err != nil {
			return err
		}
		for j := range found {
			lost, err := found[j].Loses()
			if err != nil {
				return err
			}
			steps[i].Lost = keyslotsOf(lost)
		}
	}
	return nil
}

// duePlan plans what is due at a time, from the volumes alone that may be.
func (s *Server) duePlan(ctx context.Context, state *rotate.State, now, at time.Time) (*rotate.Plan, error) {
	policy := s.rotation()
	state.Volumes = rotate.VolumesDue(ctx, s.Store, policy, at, s.guests.waits.waiting, now, s.guests.yielding())
	return rotate.Make(*state, policy, at)
}

// rotationState is what plans are made from. Its volumes, all of them, are read once.
func (s *Server) rotationState(ctx context.Context, now time.Time) (rotate.State, error) {
	keyrings, err := s.Service.Keyrings(ctx)
	if err != nil {
		return rotate.State{}, err
	}
	superseded, err := rotate.Superseded(ctx, s.Store, s.rotation(), s.guests.yielding())
	if err != nil {
		return rotate.State{}, err
	}
	excuses, err := s.excuses()
	return rotate.State{
		Keyrings: keyrings, Superseded: superseded, Excuses: excuses, Speed: rotate.Speed{Roots: len(s.Roots), Rewraps: rewrapsPerSecond, Reencrypt: int64(min(s.Service.ReencryptRate, math.MaxInt64))},
		Volumes: rotate.Volumes(ctx, s.Store, s.guests.waits.waiting, now, s.guests.yielding()),
	}, err
}

func (s *Server) rotation() *rotate.Policy {
	if s.Rotation == nil {
		return rotate.Default()
	}
	return s.Rotation
}

// excuses are read for each plan, so that one is made without a restart. The operator
// is told what is wrong with them.
func (s *Server) excuses() ([]rotate.Excuse, error) {
	if s.Excuses == nil {
		return nil, nil
	}
	list, err := s.Excuses()
	if err != nil {
		return nil, &kms.StateError{Text: err.Error()}
	}
	return list, nil
}

func planOf(p *rotate.Plan, limit int) api.RotationPlan {
	listed := min(limit, len(p.Steps))
	out := api.RotationPlan{
		At: p.Now.UTC(), Steps: make([]api.RotationStep, 0, listed), Unlisted: len(p.Steps) - listed, Totals: totalsOf(p.Lines),
		Overdue: latenessOf(p.Overdue), UnderWay: latenessOf(p.UnderWay), Excused: latenessOf(p.Excused),
		Orders: api.RotationOrders{Open: p.Orders.Open, Waiting: p.Orders.Waiting, Failing: p.Orders.Failing},
	}
	for i := range p.Steps[:listed] {
		out.Steps = append(out.Steps, stepOf(&p.Steps[i]))
	}
	return out
}

func totalsOf(lines []rotate.Line) []api.RotationTotal {
	totals := make([]api.RotationTotal, 0, len(lines))
	for _, l := range lines {
		totals = append(totals, api.RotationTotal{
			Rule: l.Rule, Kind: string(l.Kind), WaitsFor: string(l.Hold), Count: l.Count, Cost: costOf(l.Cost), Lasts: seconds(l.Lasts),
		})
	}
	return totals
}

func stepOf(s *rotate.Step) api.RotationStep {
	var after []api.RotationAction
	for _, a := range s.After {
		after = append(after, api.RotationAction{Kind: string(a.Kind), Object: a.Object.String()})
	}
	return api.RotationStep{
		AtBoot: s.AtBoot, After: after,
		Kind: string(s.Kind), Object: s.Object.String(), Machine: s.Machine, Group: s.Object.Group, Boots: s.Boots, Rule: s.Rule, Reason: s.Reason,
		Due: s.Due.UTC(), NotBefore: s.NotBefore.UTC(), Away: s.Away, WaitDays: int(s.Wait / (24 * time.Hour)), Cost: costOf(s.Cost),
	}
}

func costOf(c rotate.Cost) api.RotationCost {
	return api.RotationCost{RootCalls: c.RootCalls, Rows: c.Rows, Machines: c.Guests, Bytes: c.Bytes, Unsized: c.Unsized, Seconds: seconds(c.Time)}
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

func latenessOf(l rotate.Lateness) api.RotationLateness {
	out := api.RotationLateness{Count: l.Count, First: []api.RotationLate{}}
	for _, late := range l.First[:min(len(l.First), maxLateListed)] {
		out.First = append(out.First, api.RotationLate{
			Kind: string(late.Kind), Object: late.Object.String(), Machine: late.Machine, Deadline: late.Deadline.UTC(),
			Seen: stamp(late.Seen), Ordered: late.Ordered, Excuse: excuseOf(late.Excuse),
		})
	}
	return out
}

func excuseOf(e *rotate.Excuse) *api.RotationExcuse {
	if e == nil {
		return nil
	}
	return &api.RotationExcuse{Owner: e.Owner, Reason: e.Reason, Until: e.Until.UTC()}
}
