package cli

import (
	"context"
	"time"

	"keywright.dev/kms/api"
)

// recordTimeout bounds how long an interrupted run takes to say how it ended.
const recordTimeout = 5 * time.Second

// record is what the service knows of a run.
type record struct {
	why        string
	evenPaused bool
	id         string // once the run did something
}

// check refuses a run while rotations are paused, before anything is planned.
func (r *rotation) check(ctx context.Context) error {
	now, err := call(ctx, r.program, func(ctx context.Context, o *api.OperatorClient) (api.Rotation, error) {
		return o.Rotation(ctx, 1)
	})
	if err == nil && now.Paused != nil && !r.evenPaused && !r.dryRun {
		err = refusedf("rotations are paused since %s by %s: %s; say --even-paused, or run keywright rotate resume",
			clock(now.Paused.Since), now.Paused.By, word(now.Paused.Reason))
	}
	return err
}

// begin tells the service that the run does something from now on.
func (r *rotation) begin(ctx context.Context) error {
	if r.id != "" || r.dryRun {
		return nil
	}
	run, err := call(ctx, r.program, func(ctx context.Context, o *api.OperatorClient) (api.RotationRun, error) {
		return o.BeginRun(ctx, api.BeginRun{Why: r.why, EvenPaused: r.evenPaused})
	})
	r.id = run.ID
	return err
}

// end tells the service how the run ended. Where that is in vain nothing is lost: the run
// has no end then.
func (r *rotation) end(ctx context.Context, broken bool) {
	if r.id == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	failed := r.result.Failed
	result := api.RotationResult{Outcome: "done", Done: r.run.Count(), Refused: r.run.Refused, Failed: len(failed) - r.run.Refused, Failures: []api.RunFailure{}}
	switch {
	case broken:
		result.Outcome = "stopped"
	case len(failed) > 0:
		result.Outcome = "partly"
	}
	for _, f := range failed[:min(len(failed), api.MaxRunFailures)] {
		result.Failures = append(result.Failures, api.RunFailure{Kind: f.Kind, Object: f.Object, Error: cut(f.Error)})
	}
	_, _ = call(ctx, r.program, func(ctx context.Context, o *api.OperatorClient) (api.RotationRun, error) {
		return o.EndRun(ctx, r.id, result)
	})
}

// cut bounds a text to what the service keeps of it.
func cut(text string) string {
	const most = 500
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return text
}
