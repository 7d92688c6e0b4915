package server

import (
	"bufio"
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"keywright.dev/kms/api"
	"keywright.dev/kms/audit"
	"keywright.dev/kms/policy"
)

type listEntriesInput struct {
	Machine string `query:"machine" maxLength:"256" doc:"Only entries about this machine."`
	Action  string `query:"action" maxLength:"64" doc:"Only entries of this action."`
	Limit   int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"The most entries to return."`
}

type noInput struct{}

func (o *operators) addLog() {
	register(o, operation[listEntriesInput, struct{}, api.Page[api.AuditEntry]]{
		Route: Route{Method: http.MethodGet, Path: api.PathAudit, Action: "audit.list", Summary: "List the newest entries of the audit log, newest first."},
		find:  onLog[listEntriesInput], act: o.listEntries,
	})
	register(o, operation[noInput, struct{}, api.AuditHead]{
		Route: Route{Method: http.MethodGet, Path: api.PathAuditHead, Action: "audit.list", Summary: "The newest signed head of the audit log, to be kept elsewhere."},
		find:  onLog[noInput], act: o.auditHead,
	})
	o.registerExport()
}

func onLog[Input any](context.Context, *Input) (struct{}, object, error) {
	return struct{}{}, object{policy.Log{}, "log/audit"}, nil
}

func (o *operators) listEntries(ctx context.Context, _ struct{}, in *listEntriesInput) (api.Page[api.AuditEntry], error) {
	page := api.Page[api.AuditEntry]{Items: []api.AuditEntry{}}
	machine := ""
	if in.Machine != "" {
		m, err := o.server.Service.FindMachine(ctx, in.Machine)
		if err != nil {
			return page, err
		}
		machine = m.ID
	}
	found, err := o.server.Store.LatestEntries(ctx, machine, in.Action, in.Limit)
	if err != nil {
		return page, err
	}
	for _, f := range found {
		entry, err := o.server.Log.Verify(f.Signed)
		if err != nil {
			return page, err
		}
		page.Items = append(page.Items, entryOf(entry, f.Index))
	}
	return page, nil
}

func (o *operators) auditHead(ctx context.Context, _ struct{}, _ *noInput) (api.AuditHead, error) {
	head, size, err := o.server.Store.Head(ctx)
	return api.AuditHead{Key: o.server.Log.String(), Head: string(head), Size: size}, err
}

// registerExport adds the export, whose answer is a stream.
func (o *operators) registerExport() {
	route := Route{
		Listener: OperatorListener, Method: http.MethodGet, Path: api.PathAuditExport, Action: "audit.export",
		Summary: "Export the audit log up to its newest signed head, for verification elsewhere.",
	}
	o.routes = append(o.routes, route)
	described := o.describe(route)
	described.Responses["200"] = &huma.Response{
		Description: "The export, a JSON object on each line; see docs/formats/audit.md.",
		Content:     map[string]*huma.MediaType{"application/jsonl": {Schema: &huma.Schema{Type: huma.TypeString}}},
	}
	huma.Register(o.api, described, func(ctx context.Context, _ *noInput) (*huma.StreamResponse, error) {
		head, size, err := o.beginExport(ctx, route)
		if err != nil {
			return nil, failureOf(err)
		}
		return &huma.StreamResponse{Body: func(hctx huma.Context) {
			hctx.SetHeader("Content-Type", "application/jsonl")
			if err := o.export(ctx, hctx, head, size); err != nil {
				o.server.Logger.Error("an audit export broke off", "request", stateOf(ctx).id, "error", err)
				panic(http.ErrAbortHandler)
			}
		}}, nil
	})
}

// beginExport is allowed and recorded before the first byte leaves.
func (o *operators) beginExport(ctx context.Context, route Route) (head []byte, size int64, err error) {
	state := stateOf(ctx)
	state.route = route
	if err := o.authorize(ctx, route.Action, object{policy.Log{}, "log/audit"}); err != nil {
		return nil, 0, err
	}
	if err := o.server.Service.Record(ctx, state.operator(), route.Action, "log/audit", audit.Done); err != nil {
		return nil, 0, err
	}
	if err := o.server.sequenceAll(ctx); err != nil {
		return nil, 0, err
	}
	return o.server.Store.Head(ctx)
}

func (o *operators) export(ctx context.Context, hctx huma.Context, head []byte, size int64) error {
	out := bufio.NewWriterSize(hctx.BodyWriter(), 64<<10)
	exporter, err := audit.NewExporter(out, o.server.Log)
	if err != nil {
		return err
	}
	err = o.server.Store.SequencedEntries(ctx, 0, size, func(_ int64, signed []byte, leaf audit.Hash) error {
		return exporter.Entry(signed, leaf)
	})
	if err != nil {
		return err
	}
	if err := exporter.Head(head); err != nil {
		return err
	}
	return out.Flush()
}
