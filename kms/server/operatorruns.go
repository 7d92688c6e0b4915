package server

import (
	"cmp"
	"context"
	"net/http"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
)

type (
	rotationInput struct {
		Limit int `query:"limit" minimum:"1" maximum:"1000" default:"20" doc:"The most runs to list."`
	}
	pauseRotationInput struct {
		DryRunInput
		Body api.PauseRotation
	}
	resumeRotationInput struct {
		DryRunInput
		Body struct{}
	}
	beginRunInput struct {
		Body api.BeginRun
	}
	endRunInput struct {
		RefInput
		Body api.RotationResult
	}
)

func (o *operators) addRuns() {
	register(o, operation[rotationInput, struct{}, api.Rotation]{
		Route: Route{
			Method: http.MethodGet, Path: api.PathRotation, Action: "rotation.show",
			Summary: "Show how rotations are carried out, and the runs that were last.",
		},
		find: nothing[rotationInput],
		act: func(ctx context.Context, _ struct{}, in *rotationInput) (api.Rotation, error) {
			return o.server.rotationNow(ctx, in.Limit)
		},
	})
	register(o, operation[pauseRotationInput, struct{}, api.Rotation]{
		Route: Route{Method: http.MethodPost, Path: api.PathRotationPause, Action: kms.ActionPauseRotation, Summary: "Hold rotations."},
		find:  nothing[pauseRotationInput], act: o.pauseRotation,
	})
	register(o, operation[resumeRotationInput, struct{}, api.Rotation]{
		Route: Route{Method: http.MethodPost, Path: api.PathRotationResume, Action: kms.ActionResumeRotation, Summary: "Let rotations go on."},
		find:  nothing[resumeRotationInput], act: o.resumeRotation,
	})
	register(o, operation[beginRunInput, struct{}, api.RotationRun]{
		Route: Route{Method: http.MethodPost, Path: api.PathRotationRuns, Action: kms.ActionRunRotation, Summary: "Note that rotations are carried out from now on."},
		find:  nothing[beginRunInput],
		act: func(ctx context.Context, _ struct{}, in *beginRunInput) (api.RotationRun, error) {
			return runAnswer(o.server.Service.BeginRun(ctx, stateOf(ctx).operator(), in.Body.Why, in.Body.EvenPaused))
		},
	})
	register(o, operation[endRunInput, struct{}, api.RotationRun]{
		Route: Route{Method: http.MethodPost, Path: api.PathRotationRunEnd, Action: kms.ActionRunRotation, Summary: "Note what came of carrying rotations out."},
		find:  nothing[endRunInput], act: o.endRun,
	})
}

func (o *operators) pauseRotation(ctx context.Context, _ struct{}, in *pauseRotationInput) (api.Rotation, error) {
	pause, err := o.server.Service.PauseRotation(ctx, in.operator(ctx), in.Body.Reason)
	if err != nil {
		return api.Rotation{}, err
	}
	now, err := o.server.rotationNow(ctx, 1)
	now.Paused = cmp.Or(now.Paused, pauseOf(pause)) // of a dry run as well
	return now, err
}

func (o *operators) resumeRotation(ctx context.Context, _ struct{}, in *resumeRotationInput) (api.Rotation, error) {
	if err := o.server.Service.ResumeRotation(ctx, in.operator(ctx)); err != nil {
		return api.Rotation{}, err
	}
	now, err := o.server.rotationNow(ctx, 1)
	now.Paused = nil
	return now, err
}

func (o *operators) endRun(ctx context.Context, _ struct{}, in *endRunInput) (api.RotationRun, error) {
	b := &in.Body
	if b.Outcome == "" {
		return api.RotationRun{}, &kms.UsageError{Text: "a run ends as done, partly or stopped"}
	}
	result := kms.RunResult{Outcome: kms.RunOutcome(b.Outcome), Done: b.Done, Refused: b.Refused, Failed: b.Failed}
	for _, f := range b.Failures {
		result.Failures = append(result.Failures, kms.RunFailure(f))
	}
	return runAnswer(o.server.Service.EndRun(ctx, stateOf(ctx).operator(), in.Ref, result))
}

// rotationNow is how rotations are carried out now.
func (s *Server) rotationNow(ctx context.Context, limit int) (api.Rotation, error) {
	out := api.Rotation{Runs: []api.RotationRun{}}
	pause, err := s.Store.RotationPause(ctx)
	if err != nil {
		return out, err
	}
	out.Paused = pauseOf(pause)
	if s.Schedule != nil {
		out.Schedule, out.Next = s.Schedule.String(), stamp(s.Schedule.Next(s.Clock()).UTC())
	}
	runs, err := s.Store.RotationRuns(ctx, limit)
	for i := range runs {
		out.Runs = append(out.Runs, runOf(&runs[i]))
	}
	return out, err
}

func pauseOf(p *kms.RotationPause) *api.RotationPause {
	if p == nil {
		return nil
	}
	return &api.RotationPause{Since: p.Since.UTC(), By: p.By, Reason: p.Reason}
}

func runAnswer(r *kms.RotationRun, err error) (api.RotationRun, error) {
	if err != nil {
		return api.RotationRun{}, err
	}
	return runOf(r), nil
}

func runOf(r *kms.RotationRun) api.RotationRun {
	out := api.RotationRun{ID: r.ID, Why: r.Why, By: r.By, Started: r.Started.UTC(), Ended: stamp(r.Ended)}
	out.RotationResult = api.RotationResult{Outcome: string(r.Outcome), Done: r.Done, Refused: r.Refused, Failed: r.Failed, Failures: []api.RunFailure{}}
	for _, f := range r.Failures {
		out.Failures = append(out.Failures, api.RunFailure(f))
	}
	return out
}
