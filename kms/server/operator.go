package server

import (
	"context"
	"errors"
	"io"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
	"keywright.dev/kms/policy"
)

// operators serves the operator listener.
type operators struct {
	server *Server
	mux    *http.ServeMux
	api    huma.API
	routes []Route
}

// maxOperatorBody bounds a request of an operator, in bytes.
const maxOperatorBody = 256 << 10

func newOperators(s *Server) *operators {
	o := &operators{server: s, mux: http.NewServeMux()}
	o.api = humago.New(o.mux, humaConfig(s.Version))
	o.addMachines()
	o.addMeasurements()
	o.addVolumes()
	o.addOrders()
	o.addIdentity()
	o.addRotation()
	o.addCompromise()
	o.addRuns()
	o.addRecovery()
	o.addRoots()
	o.addCustodians()
	o.addKeyrings()
	o.addKeys()
	o.addLog()
	o.addService()
	return o
}

// humaConfig is huma without what it serves by itself, with strict JSON, and
// with the one form of errors.
func humaConfig(version string) huma.Config {
	c := huma.DefaultConfig("Keywright", version)
	c.OpenAPIPath, c.DocsPath, c.SchemasPath = "", "", ""
	c.CreateHooks = nil
	c.RejectUnknownQueryParameters = true
	format := huma.Format{
		Marshal: func(w io.Writer, v any) error {
			body, err := api.Encode(v)
			if err != nil {
				return err
			}
			_, err = w.Write(body)
			return err
		},
		Unmarshal: api.Decode,
	}
	c.Formats = map[string]huma.Format{"application/json": format, "json": format}
	c.Transformers = []huma.Transformer{uniformErrors}
	return c
}

// uniformErrors replaces huma's errors, which quote what they refuse.
func uniformErrors(ctx huma.Context, _ string, v any) (any, error) {
	var f *failure
	switch e := v.(type) {
	case *failure:
		f = e
	case *huma.ErrorModel:
		f = failureOfStatus(e.Status)
	default:
		return v, nil
	}
	state := stateOf(ctx.Context())
	state.failed = f
	body := f.body
	body.Request = state.id
	ctx.SetHeader("Content-Type", "application/json")
	return &body, nil
}

// failureOfStatus is the answer to what huma refused by itself.
func failureOfStatus(status int) *failure {
	switch status {
	case http.StatusRequestEntityTooLarge:
		return fail(api.CodeTooLarge)
	case http.StatusRequestTimeout:
		return fail(api.CodeTimeout)
	case http.StatusUnsupportedMediaType, http.StatusNotAcceptable:
		return fail(api.CodeMediaType)
	case http.StatusNotFound:
		return fail(api.CodeNotFound)
	case http.StatusInternalServerError:
		return fail(api.CodeInternal)
	default:
		return fail(api.CodeMalformed)
	}
}

// callState goes with a request on the operator listener.
type callState struct {
	id       string
	peer     Peer
	route    Route
	policies []string // that permitted it
	failed   *failure
}

// operator is the caller as the domain and the audit log know it.
func (s *callState) operator() kms.Operator {
	return kms.Operator{Actor: s.peer.actor(), Request: s.id, Policies: s.policies}
}

type stateKey struct{}

func stateOf(ctx context.Context) *callState {
	if state, ok := ctx.Value(stateKey{}).(*callState); ok {
		return state
	}
	return &callState{peer: Peer{UID: -1}}
}

// ServeHTTP admits the two users who may operate the service and nobody else.
func (o *operators) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := o.server
	began := s.Clock()
	state := &callState{id: s.requestID(), peer: peerFrom(r.Context()), route: Route{Listener: OperatorListener, Path: "other"}}
	r = r.WithContext(context.WithValue(r.Context(), stateKey{}, state))
	var err error
	defer func() {
		if state.failed != nil {
			err = state.failed
		}
		s.answered(r.Context(), state.route, state.id, state.peer.actor().ID, began, err)
	}()
	if err = o.admit(r, state); err != nil {
		writeFailure(w, state.id, failureOf(err))
		return
	}
	setHeaders(w.Header(), state.id)
	defer o.recover(w, state)
	o.mux.ServeHTTP(&tableWriter{w, state}, r)
}

// tableWriter gives a failure the status of the one table, where huma would
// have its own.
type tableWriter struct {
	http.ResponseWriter
	state *callState
}

// WriteHeader implements [http.ResponseWriter].
func (w *tableWriter) WriteHeader(status int) {
	if w.state.failed != nil {
		status = w.state.failed.status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for [http.ResponseController].
func (w *tableWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// admit refuses who and what huma is not to see.
func (o *operators) admit(r *http.Request, state *callState) error {
	if err := CheckPeer(state.peer, o.server.Owner); err != nil {
		f := fail(api.CodeForbidden)
		f.cause = err
		if err := o.server.Service.RecordDenied(r.Context(), state.operator(), "operator.connect", ""); err != nil {
			return err
		}
		return f
	}
	if _, pattern := o.mux.Handler(r); pattern == "" {
		return o.notRouted(r)
	}
	if r.Method != http.MethodGet {
		return checkMedia(r)
	}
	return nil
}

// notRouted tells a wrong method from a wrong path.
func (o *operators) notRouted(r *http.Request) error {
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		other := r.Clone(r.Context())
		other.Method = method
		if _, pattern := o.mux.Handler(other); pattern != "" {
			return fail(api.CodeMethod)
		}
	}
	return fail(api.CodeNotFound)
}

func (o *operators) recover(w http.ResponseWriter, state *callState) {
	p := recover()
	if p == nil {
		return
	}
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		// An answer broke off: the caller has to see that.
		panic(p)
	}
	o.server.Logger.Error("a request panicked", "request", state.id, "panic", p, "stack", string(debug.Stack()))
	state.failed = fail(api.CodeInternal)
	writeFailure(w, state.id, state.failed)
}

// object is what an operator acts on, as policies and the audit log name it.
type object struct {
	resource policy.Resource
	name     string // such as machine/ID; empty for the service itself
}

// operation is one route of the operator listener: it finds what it acts on, is
// allowed to, and acts.
type operation[Input, Target, Answer any] struct {
	Route
	// find finds the target. It changes nothing.
	find func(ctx context.Context, in *Input) (Target, object, error)
	// act carries it out. Reads do not record themselves; changes do, in the
	// transaction that makes them.
	act func(ctx context.Context, target Target, in *Input) (Answer, error)
}

// reply is an answer as huma sees it.
type reply[T any] struct {
	Body T
}

// register adds an operation to the router and to the API description.
func register[Input, Target, Answer any](o *operators, op operation[Input, Target, Answer]) {
	op.Listener = OperatorListener
	o.routes = append(o.routes, op.Route)
	huma.Register(o.api, o.describe(op.Route), func(ctx context.Context, in *Input) (*reply[Answer], error) {
		answer, err := perform(ctx, o, op, in)
		if err != nil {
			return nil, failureOf(err)
		}
		return &reply[Answer]{answer}, nil
	})
}

// describe is a route for huma.
func (o *operators) describe(r Route) huma.Operation {
	return huma.Operation{
		OperationID: operationID(r), Method: r.Method, Path: r.Path, Summary: r.Summary,
		Tags: []string{string(r.Listener)}, MaxBodyBytes: maxOperatorBody, BodyReadTimeout: o.server.Limits.BodyTimeout,
		Extensions: map[string]any{extensionAction: r.Action},
		Responses:  errorResponses(o.api.OpenAPI().Components.Schemas),
	}
}

// perform asks the policy engine before it acts, and records what it refused.
func perform[Input, Target, Answer any](ctx context.Context, o *operators, op operation[Input, Target, Answer], in *Input) (Answer, error) {
	var none Answer
	stateOf(ctx).route = op.Route
	target, on, err := op.find(ctx, in)
	if err != nil {
		return none, err
	}
	if err := o.authorize(ctx, op.Action, on); err != nil {
		return none, err
	}
	return op.act(ctx, target, in)
}

// authorize asks the policy engine. Until operators sign in, the socket's user
// is the one admin.
func (o *operators) authorize(ctx context.Context, action string, on object) error {
	s := o.server
	state := stateOf(ctx)
	who := policy.Operator{ID: state.peer.actor().ID, Roles: []policy.Role{policy.RoleAdmin}}
	decision := s.Policy().Operate(who, action, on.resource, policy.Call{Time: s.Clock()})
	if decision.Allowed {
		// An act may need more than one permission.
		state.policies = append(state.policies, decision.Policies...)
		return nil
	}
	state.policies = decision.Policies
	s.Logger.Warn("an operator was refused", "action", action, "object", on.name, "actor", who.ID, "decision", decision.String())
	if err := s.Service.RecordDenied(ctx, state.operator(), action, on.name); err != nil {
		return err
	}
	return fail(api.CodeForbidden)
}

// onService is the object of what concerns no single one.
func onService() object { return object{resource: policy.Service{}} }

// nothing finds the service itself.
func nothing[Input any](context.Context, *Input) (struct{}, object, error) {
	return struct{}{}, onService(), nil
}

// stamp returns the pointer form of a time that may be zero.
func stamp(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
