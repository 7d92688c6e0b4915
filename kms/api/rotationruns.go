package api

import (
	"context"
	"net/url"
	"strconv"
	"time"
)

// MaxRotationRuns bounds the runs that are kept, and MaxRunFailures what is named of one.
const (
	MaxRotationRuns = 1000
	MaxRunFailures  = 20
)

// Rotation is how rotations are carried out, and were.
type Rotation struct {
	// Paused is why nothing is carried out; absent where it is.
	Paused *RotationPause `json:"paused,omitempty"`
	// Schedule is a cron expression and its time zone; absent where the service
	// rotates nothing by itself.
	Schedule string `json:"schedule,omitempty"`
	// Next is when it does so next.
	Next *time.Time `json:"next,omitempty"`
	// Runs are those that did something, newest first.
	Runs []RotationRun `json:"runs"`
}

// RotationPause holds rotations until somebody ends it.
type RotationPause struct {
	Since  time.Time `json:"since"`
	By     string    `json:"by"`
	Reason string    `json:"reason"`
}

// RotationRun is one time that rotations were carried out.
type RotationRun struct {
	ID string `json:"id"`
	// Why is schedule, due, or what was out.
	Why     string    `json:"why"`
	By      string    `json:"by"`
	Started time.Time `json:"started"`
	// Ended is absent of a run that is under way, or whose end was never heard of.
	Ended *time.Time `json:"ended,omitempty"`
	RotationResult
}

// RotationResult is what came of a run.
type RotationResult struct {
	// Outcome is done, partly, where steps were refused or failed, or stopped, where it
	// ended before it was through; empty of a run that has not ended.
	Outcome string `json:"outcome" enum:"done,partly,stopped,"`
	Done    int    `json:"done" minimum:"0"`
	Refused int    `json:"refused" minimum:"0"`
	Failed  int    `json:"failed" minimum:"0"`
	// Failures names the first of what was refused or failed.
	Failures []RunFailure `json:"failures" maxItems:"20"`
}

// RunFailure is a step that was refused, or failed.
type RunFailure struct {
	Kind   string `json:"kind" maxLength:"64"`
	Object string `json:"object" maxLength:"128"`
	Error  string `json:"error" maxLength:"512"`
}

// PauseRotation is the body that holds rotations.
type PauseRotation struct {
	Reason string `json:"reason" minLength:"1" maxLength:"512" doc:"Why; it goes into the audit log."`
}

// BeginRun is the body that notes the beginning of a run.
type BeginRun struct {
	Why        string `json:"why" minLength:"1" maxLength:"512" doc:"due, or what is out and why."`
	EvenPaused bool   `json:"even_paused,omitempty" doc:"Begin also while rotations are paused."`
}

// Rotation returns how rotations are carried out, and the runs that were last; at most
// limit, 0 leaves that to the service.
func (o *OperatorClient) Rotation(ctx context.Context, limit int) (Rotation, error) {
	query := url.Values{}
	if limit > 0 {
		query.Set("limit", strconv.Itoa(limit))
	}
	return get[Rotation](ctx, o.c, PathRotation, query)
}

// PauseRotation holds rotations.
func (o *OperatorClient) PauseRotation(ctx context.Context, reason string) (Rotation, error) {
	return post[Rotation](ctx, o.c, PathRotationPause, PauseRotation{Reason: reason})
}

// ResumeRotation ends a pause.
func (o *OperatorClient) ResumeRotation(ctx context.Context) (Rotation, error) {
	return post[Rotation](ctx, o.c, PathRotationResume, struct{}{})
}

// BeginRun notes the beginning of a run, which a pause refuses.
func (o *OperatorClient) BeginRun(ctx context.Context, body BeginRun) (RotationRun, error) {
	return post[RotationRun](ctx, o.c, PathRotationRuns, body)
}

// EndRun notes what came of a run.
func (o *OperatorClient) EndRun(ctx context.Context, id string, result RotationResult) (RotationRun, error) {
	return post[RotationRun](ctx, o.c, at(PathRotationRunEnd, id), result)
}
