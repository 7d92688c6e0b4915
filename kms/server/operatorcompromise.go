package server

import (
	"context"
	"net/http"
	"slices"
	"time"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
	"keywright.dev/rotate"
)

// maxUnopenable bounds what an answer lists of images that open no more.
const maxUnopenable = 1000

type chainInput struct {
	What   []string  `query:"what,explode" maxItems:"32" doc:"What is out, at least one: keyring/NAME@N, volume/ID, machine/NAME or luks-header:volume/ID."`
	Since  time.Time `query:"since" doc:"When it was found out, in the form of RFC 3339: what was made before is replaced; now without it."`
	Copied bool      `query:"copied" doc:"Disks or headers may have been copied, too."`
	Limit  int       `query:"limit" minimum:"1" maximum:"5000" default:"1000" doc:"The most steps to list."`
}

func (o *operators) addCompromise() {
	register(o, operation[chainInput, struct{}, api.RotationChain]{
		Route: Route{
			Method: http.MethodGet, Path: api.PathRotationChain, Action: "rotation.plan",
			Summary: "Plan what is to be done about keys that are out; nothing is changed.",
		},
		find: nothing[chainInput], act: o.chain,
	})
}

func (o *operators) chain(ctx context.Context, _ struct{}, in *chainInput) (api.RotationChain, error) {
	s := o.server
	now := s.Clock()
	incidents, err := in.incidents(now)
	if err != nil {
		return api.RotationChain{}, err
	}
	state, err := s.rotationState(ctx, now)
	if err != nil {
		return api.RotationChain{}, err
	}
	chain, err := rotate.Compromised(state, s.rotation(), now, incidents...)
	if err != nil {
		return api.RotationChain{}, err
	}
	answer := chainOf(chain, now, in.Limit)
	return answer, s.nameLost(ctx, answer.Steps)
}

func (in *chainInput) incidents(now time.Time) (list []rotate.Incident, err error) {
	since := in.Since
	switch {
	case len(in.What) == 0:
		return nil, &kms.UsageError{Text: "say what is out: what=keyring/NAME@N, volume/ID, machine/NAME or luks-header:volume/ID"}
	case since.IsZero():
		since = now
	case since.After(now):
		return nil, &kms.UsageError{Text: "the time at which it was found out is yet to come"}
	}
	for _, text := range in.What {
		what, err := rotate.ParseReference(text)
		if err != nil {
			return nil, &kms.UsageError{Text: err.Error()}
		}
		incident := rotate.Incident{What: what, Since: since, Copied: in.Copied}
		if !slices.Contains(list, incident) {
			list = append(list, incident)
		}
	}
	return list, nil
}

func chainOf(c *rotate.Chain, now time.Time, limit int) api.RotationChain {
	listed := min(limit, len(c.Steps))
	out := api.RotationChain{
		At: now.UTC(), Steps: make([]api.RotationStep, 0, listed), Unlisted: len(c.Steps) - listed, Totals: totalsOf(c.Lines),
		Unopenable: []api.UnopenableImages{}, UnopenableCount: c.UnopenableCount, Beyond: append([]string{}, c.Beyond...),
	}
	for i := range c.Steps[:listed] {
		out.Steps = append(out.Steps, stepOf(&c.Steps[i]))
	}
	for _, u := range c.Unopenable[:min(len(c.Unopenable), maxUnopenable)] {
		out.Unopenable = append(out.Unopenable, api.UnopenableImages{Object: u.Object.String(), From: u.From.UTC(), Until: stamp(u.Until)})
	}
	return out
}
