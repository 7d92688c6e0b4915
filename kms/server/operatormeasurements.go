package server

import (
	"context"
	"net/http"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
	"keywright.dev/kms/policy"
)

type (
	listMeasurementsInput struct {
		PageInput
		Group string `query:"group" maxLength:"64" doc:"Only measurements of this group."`
	}
	showMeasurementInput struct {
		RefInput
		Group string `query:"group" maxLength:"64" doc:"The group, where several have it."`
	}
	approveMeasurementInput struct {
		RefInput
		DryRunInput
		Body api.ApproveMeasurement
	}
	dismissMeasurementInput struct {
		RefInput
		DryRunInput
		Body api.DismissMeasurement
	}
	retireMeasurementInput struct {
		RefInput
		DryRunInput
		Body api.RetireMeasurement
	}
	submitMeasurementInput struct {
		Body api.SubmitMeasurement
	}
)

func (o *operators) addMeasurements() {
	register(o, operation[listMeasurementsInput, struct{}, api.Page[api.Measurement]]{
		Route: Route{Method: http.MethodGet, Path: api.PathMeasurements, Action: "measurement.list", Summary: "List measurements."},
		find:  nothing[listMeasurementsInput], act: o.listMeasurements,
	})
	register(o, operation[showMeasurementInput, *kms.Measurement, api.Measurement]{
		Route: Route{Method: http.MethodGet, Path: api.PathMeasurement, Action: "measurement.show", Summary: "Show a measurement with its claims."},
		find:  o.findMeasurement, act: o.showMeasurement,
	})
	register(o, operation[approveMeasurementInput, string, api.Measurement]{
		Route: Route{Method: http.MethodPost, Path: api.PathMeasurementApprove, Action: kms.ActionApproveMeasurement, Summary: "Let a group's machines boot with a measurement."},
		find:  o.findToApprove, act: o.approveMeasurement,
	})
	register(o, operation[dismissMeasurementInput, *kms.Measurement, api.Measurement]{
		Route: Route{Method: http.MethodPost, Path: api.PathMeasurementDismiss, Action: kms.ActionDismissMeasurement, Summary: "Forget a measurement that waits for approval."},
		find: func(ctx context.Context, in *dismissMeasurementInput) (*kms.Measurement, object, error) {
			return o.findMeasurement(ctx, &showMeasurementInput{RefInput: in.RefInput, Group: in.Body.Group})
		},
		act: o.dismissMeasurement,
	})
	register(o, operation[retireMeasurementInput, *kms.Measurement, api.Measurement]{
		Route: Route{Method: http.MethodPost, Path: api.PathMeasurementRetire, Action: kms.ActionRetireMeasurement, Summary: "Take the approval of a measurement away that newer ones took the place of."},
		find: func(ctx context.Context, in *retireMeasurementInput) (*kms.Measurement, object, error) {
			return o.findMeasurement(ctx, &showMeasurementInput{RefInput: in.RefInput, Group: in.Body.Group})
		},
		act: o.retireMeasurement,
	})
	register(o, operation[submitMeasurementInput, struct{}, api.Measurement]{
		Route: Route{Method: http.MethodPost, Path: api.PathMeasurements, Action: kms.ActionSubmitMeasurement, Summary: "Enter a measurement computed from the files of a boot to come."},
		find:  findSubmitted, act: o.submitMeasurement,
	})
}

func onMeasurement(id, group string) object {
	return object{policy.Measurement{ID: id, Group: group}, "measurement/" + id}
}

func (o *operators) findMeasurement(ctx context.Context, in *showMeasurementInput) (*kms.Measurement, object, error) {
	m, err := o.server.Service.FindMeasurement(ctx, in.Ref, in.Group)
	if err != nil {
		return nil, object{}, err
	}
	return m, onMeasurement(hexOf(m.Digest), m.Group), nil
}

// findToApprove finds the digest; the approval is for the group that the body
// names, which need not have it yet.
func (o *operators) findToApprove(ctx context.Context, in *approveMeasurementInput) (string, object, error) {
	m, err := o.server.Service.FindMeasurement(ctx, in.Ref, in.Body.Group)
	if err == nil {
		id := hexOf(m.Digest)
		return id, onMeasurement(id, m.Group), nil
	}
	rows, listErr := o.server.Store.FindMeasurements(ctx, trimMeasurement(in.Ref), 1)
	if listErr != nil || len(rows) == 0 || in.Body.Group == "" {
		return "", object{}, err
	}
	return in.Ref, onMeasurement(hexOf(rows[0].Digest), in.Body.Group), nil
}

func findSubmitted(context.Context, *submitMeasurementInput) (struct{}, object, error) {
	return struct{}{}, object{policy.Measurement{}, ""}, nil
}

func (o *operators) listMeasurements(ctx context.Context, _ struct{}, in *listMeasurementsInput) (api.Page[api.Measurement], error) {
	list, err := o.server.Store.Measurements(ctx, in.Group, in.After, in.Limit)
	return pageOf(list, in.Limit, measurementOf, func(m *kms.Measurement) string { return hexOf(m.Digest) }), err
}

func (o *operators) showMeasurement(_ context.Context, m *kms.Measurement, _ *showMeasurementInput) (api.Measurement, error) {
	return withClaims(m)
}

func (o *operators) approveMeasurement(ctx context.Context, ref string, in *approveMeasurementInput) (api.Measurement, error) {
	return measurementAnswer(o.server.Service.ApproveMeasurement(ctx, in.operator(ctx), ref, in.Body.Group))
}

func (o *operators) dismissMeasurement(ctx context.Context, m *kms.Measurement, in *dismissMeasurementInput) (api.Measurement, error) {
	return measurementAnswer(o.server.Service.DismissMeasurement(ctx, in.operator(ctx), hexOf(m.Digest), m.Group))
}

func (o *operators) retireMeasurement(ctx context.Context, m *kms.Measurement, in *retireMeasurementInput) (api.Measurement, error) {
	return measurementAnswer(o.server.Service.RetireMeasurement(ctx, in.operator(ctx), hexOf(m.Digest), m.Group, in.Body.Boots))
}

func (o *operators) submitMeasurement(ctx context.Context, _ struct{}, in *submitMeasurementInput) (api.Measurement, error) {
	return measurementAnswer(o.server.Service.SubmitMeasurement(ctx, stateOf(ctx).operator(), in.Body.Base, in.Body.Group, in.Body.Files))
}

func measurementAnswer(m *kms.Measurement, err error) (api.Measurement, error) {
	if err != nil {
		return api.Measurement{}, err
	}
	return withClaims(m)
}
