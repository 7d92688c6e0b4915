package server

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"reflect"
	"runtime/debug"
	"time"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
)

// guests serves the guest listener: one method, JSON both ways.
type guests struct {
	server *Server
	routes []guestRoute
	byPath map[string]guestRoute
	rates  *sourceRates
	bodies *bodies

	waits *waits

	releases, enrolments, challenges, keys *lane
}

// guestRoute is one path of the guest listener.
type guestRoute struct {
	Route
	// limit bounds the body, in bytes.
	limit int
	lane  *lane // nil for one that waits
	// serve decodes the body, acts, and returns the answer.
	serve func(ctx context.Context, c call, body []byte) (any, error)
	// request and answer are the types on the wire.
	request, answer reflect.Type
}

// call is what is known of a request beside its body.
type call struct {
	id     string
	source netip.Addr
	began  time.Time
}

// guestCall makes a route of a function from one wire type to another.
func guestCall[Request, Answer any](r Route, limit int, l *lane, act func(context.Context, call, *Request) (Answer, error)) guestRoute {
	r.Listener, r.Method = GuestListener, http.MethodPost
	return guestRoute{
		Route: r, limit: limit, lane: l,
		request: reflect.TypeFor[Request](), answer: reflect.TypeFor[Answer](),
		serve: func(ctx context.Context, c call, body []byte) (any, error) {
			var request Request
			if err := api.Decode(body, &request); err != nil {
				return nil, fail(api.CodeMalformed)
			}
			return act(ctx, c, &request)
		},
	}
}

func newGuests(s *Server) *guests {
	g := &guests{
		server: s, byPath: make(map[string]guestRoute),
		rates: newSourceRates(&s.Limits), bodies: newBodies(&s.Limits), waits: newWaits(&s.Limits),
		releases:   newLane("release", s.Limits.Releases),
		enrolments: newLane("enrolment", s.Limits.Enrolments),
		challenges: newLane("challenge", s.Limits.Challenges),
		keys:       newLane("key", s.Limits.Keys),
	}
	g.routes = g.table()
	for _, r := range g.routes {
		g.byPath[r.Path] = r
	}
	return g
}

func (g *guests) lanes() []*lane {
	return []*lane{g.releases, g.enrolments, g.challenges, g.keys, g.waits.room}
}

// ServeHTTP answers one request.
func (g *guests) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := call{id: g.server.requestID(), source: addressOf(r.RemoteAddr), began: g.server.Clock()}
	route, err := g.find(r)
	var answer any
	if err == nil {
		answer, err = g.answer(w, r, c, route)
	}
	if err != nil {
		writeFailure(w, c.id, failureOf(err))
	} else {
		err = writeJSON(w, c.id, http.StatusOK, answer)
	}
	g.count(route.Route, err)
	g.server.answered(r.Context(), route.Route, c.id, c.source.String(), c.began, err)
}

// find returns the route of a request. Paths are compared as they are: there is
// one way to write each.
func (g *guests) find(r *http.Request) (guestRoute, error) {
	route, ok := g.byPath[r.URL.EscapedPath()]
	switch {
	case !ok || r.URL.RawQuery != "":
		return guestRoute{Route: Route{Listener: GuestListener, Path: "other"}}, fail(api.CodeNotFound)
	case r.Method != route.Method:
		return route, fail(api.CodeMethod)
	default:
		return route, nil
	}
}

// answer works in the order of cost: rate, form and size of the body, turn, and
// only then what the body says.
func (g *guests) answer(w http.ResponseWriter, r *http.Request, c call, route guestRoute) (answer any, err error) {
	defer g.recover(&err, c)
	if retry, ok := g.rates.admit(c.source, c.began); !ok {
		return nil, failAfter(api.CodeRate, retry)
	}
	memory := g.bodies.open(c.source)
	defer memory.close()
	body, err := memory.read(w, r, route.limit, c.began)
	if err != nil {
		return nil, err
	}
	if route.lane != nil {
		leave, err := route.lane.enter(r.Context())
		if err != nil {
			return nil, err
		}
		defer leave()
	}
	return route.serve(r.Context(), c, body)
}

// recover turns a panic into an answer: one machine's request must not end the
// others'.
func (g *guests) recover(err *error, c call) {
	if p := recover(); p != nil {
		g.server.Logger.Error("a request panicked", "request", c.id, "panic", p, "stack", string(debug.Stack()))
		*err = fail(api.CodeInternal)
	}
}

// count counts what the domain decided.
func (g *guests) count(r Route, err error) {
	m := g.server.Metrics
	var refusal *kms.Refusal
	var f *failure
	if errors.As(err, &f) && f.cause != nil {
		err = f.cause
	}
	switch {
	case errors.As(err, &refusal):
		m.refusals.WithLabelValues(r.Path, string(refusal.Reason)).Inc()
	case err != nil:
	case r.Path == api.PathGuestOrders, r.Path == api.PathRekeyHeader:
	case r.Path == api.PathBootChallenge, r.Path == api.PathCommitChallenge, r.Path == api.PathStageChallenge,
		r.Path == api.PathRekeyChallenge, r.Path == api.PathRekeyedChallenge, r.Path == api.PathGuestKeyChallenge, r.Path == api.PathEnrollBegin:
		m.challenges.WithLabelValues(r.Path, "issued").Inc()
	default:
		m.challenges.WithLabelValues(r.Path, "redeemed").Inc()
	}
	if err == nil && r.Path == api.PathBootRelease {
		m.releases.Inc()
	}
}
