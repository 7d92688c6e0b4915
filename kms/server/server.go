package server

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"keywright.dev/kms"
	"keywright.dev/kms/audit"
	"keywright.dev/kms/policy"
	"keywright.dev/rotate"
)

// Store is the store as the operators' queries see it.
type Store interface {
	kms.Reader
	kms.LogReader
	// Err returns why the store takes no more changes, or nil while it does. What
	// it holds is unknown then, until it is opened anew.
	Err() error
	// LastFailure returns why the last change could not be written; nil once one
	// could.
	LastFailure() error
	// TryWriting writes something that changes nothing.
	TryWriting(ctx context.Context) error
}

// Backups are the store as backups see it.
type Backups interface {
	// Backup writes a backup to a file that does not exist and returns its size.
	// It is complete and durable once it returns.
	Backup(ctx context.Context, path string) (bytes int64, err error)
	// CheckBackup returns why no file can be written there; nil where one can.
	CheckBackup(path string) error
	// LastBackup returns when the store was last backed up; the zero time if
	// never.
	LastBackup(ctx context.Context) (time.Time, error)
}

// Config is what a [Server] is made of. All fields but Restored, Rotation, Excuses and
// Schedule are required, Queue, Leader and StandEvery with a Schedule.
type Config struct {
	Version string // of the product
	// Restored tells that this is the first start after a restore.
	Restored bool
	Service  *kms.Service
	Store    Store
	Backups  Backups
	// Log verifies the entries that the store returns.
	Log    *audit.Verifier
	Policy func() *policy.Engine
	// Rotation is the policy of rotations; nil is [rotate.Default].
	Rotation *rotate.Policy
	// Excuses reads why machines may be late; nil where nobody says.
	Excuses func() ([]rotate.Excuse, error)
	// Schedule is when the service rotates by itself; nil is never.
	Schedule   *rotate.Schedule
	Queue      Queue
	Leader     rotate.Office
	StandEvery time.Duration // see the constant
	// TLS is the guest listener's.
	TLS *tls.Config
	// GuestURL is what guests are told to connect to.
	GuestURL string
	Roots    []string // URIs
	Leases   func() []kms.LeaseState
	// Challenges makes a challenge for each custodian of a quorum.
	Challenges func(kms.Quorum) ([]Challenge, error)
	// Owner is the uid of the user that may operate the service, beside root.
	Owner  int
	Limits Limits
	// Upkeep runs every minute, beside what the server does itself.
	Upkeep  func(ctx context.Context) error
	Metrics *Metrics
	Logger  *slog.Logger
	Clock   func() time.Time
	Random  io.Reader // for request ids
}

// Server serves the three listeners.
type Server struct {
	Config
	started time.Time
	// running is set while requests are admitted.
	running atomic.Bool

	guests      *guests
	connections *connections
	operators   http.Handler
	observers   http.Handler
	routes      []Route
}

// Listener names one of the three.
type Listener string

// The listeners.
const (
	GuestListener    Listener = "guest"
	OperatorListener Listener = "operator"
	MetricsListener  Listener = "metrics"
)

// Route is one path of one listener.
type Route struct {
	Listener Listener
	Method   string
	Path     string
	// Action is what the route does, as policies and the audit log name it.
	Action string
	// Summary is one sentence for the API reference.
	Summary string
}

// ActionObserve is the action of the metrics listener, which shows no object
// that a policy could be about.
const ActionObserve = "server.observe"

// New makes a server, and fails if a route names no action, or an operators'
// route one that the policy schema does not have.
func New(c Config) (*Server, error) {
	s := &Server{Config: c, started: c.Clock()}
	s.guests = newGuests(s)
	s.Service.NotifyOrdered(s.guests.waits.ordered)
	s.connections = newConnections(&s.Limits, c.Clock, c.Metrics.turnedAway.Inc)
	operators := newOperators(s)
	s.operators = operators
	observe := observerRoutes(s)
	s.observers = newObservers(s, observe)
	for _, r := range s.guests.routes {
		s.routes = append(s.routes, r.Route)
	}
	s.routes = append(s.routes, operators.routes...)
	for _, r := range observe {
		s.routes = append(s.routes, r.Route)
	}
	if err := checkActions(s.routes, c.Policy()); err != nil {
		return nil, err
	}
	s.registerGauges()
	return s, nil
}

// Routes returns every route of every listener.
func (s *Server) Routes() []Route { return s.routes }

// checkActions holds every route to an action.
func checkActions(routes []Route, engine *policy.Engine) error {
	var errs []error
	for _, r := range routes {
		_, known := engine.Action(r.Action)
		switch {
		case r.Action == "":
			errs = append(errs, fmt.Errorf("route %s %s of the %s listener names no action", r.Method, r.Path, r.Listener))
		case r.Listener == OperatorListener && !known:
			errs = append(errs, fmt.Errorf("route %s %s: the policy schema has no action %s", r.Method, r.Path, r.Action))
		}
	}
	return errors.Join(errs...)
}

func (s *Server) registerGauges() {
	m := s.Metrics
	m.registry.MustRegister(newCounter(s.Store.Counts))
	m.gauge("keywright_ready", "1 while the service is ready, else 0.", nil,
		func() float64 { return map[bool]float64{true: 1}[s.Ready(context.Background()) == nil] })
	m.gauge("keywright_lease_seconds", "Least time that a keyring version's key is held still without a root; 0: one is closed.", nil,
		func() float64 { return leastLease(s.Leases()) })
	m.gauge("keywright_guest_connections", "Open guest connections.", nil,
		func() float64 { return float64(s.connections.count()) })
	m.gauge("keywright_guest_body_bytes", "Memory that request bodies of guests hold.", nil,
		func() float64 { return float64(s.guests.bodies.inUse()) })
	for _, l := range s.guests.lanes() {
		m.gauge("keywright_guest_lane_in_use", "Guest requests that are worked on, by lane.", prometheus.Labels{"lane": l.name},
			func() float64 { return float64(l.inUse()) })
	}
}

// requestID names one request in the log, the audit log and the answer.
func (s *Server) requestID() string {
	var id [8]byte
	if _, err := io.ReadFull(s.Random, id[:]); err != nil {
		s.Logger.Error("making a request id", "error", err)
	}
	return hex.EncodeToString(id[:])
}

// levelOf is how loud the log says that a request failed: a fault of the service
// that may pass by itself is a warning, and that it works at its limit is none.
func levelOf(f *failure) slog.Level {
	switch {
	case f.status < http.StatusInternalServerError:
		return slog.LevelInfo
	case f.body.RetryAfter == 0:
		return slog.LevelError
	case f.cause != nil:
		return slog.LevelWarn
	default:
		return slog.LevelInfo
	}
}

// answered counts a request and logs it. What is logged of it is no secret and
// not its body.
func (s *Server) answered(ctx context.Context, r Route, id, caller string, began time.Time, err error) {
	code, level := "ok", slog.LevelInfo
	attrs := []slog.Attr{
		slog.String("listener", string(r.Listener)), slog.String("action", r.Action),
		slog.String("request", id), slog.String("caller", caller),
	}
	if err != nil {
		f := failureOf(err)
		code = string(f.body.Code)
		if f.cause != nil {
			attrs = append(attrs, slog.String("cause", f.cause.Error()))
		}
		level = levelOf(f)
	}
	took := s.Clock().Sub(began)
	s.Metrics.requests.WithLabelValues(string(r.Listener), r.Path, code).Inc()
	s.Metrics.seconds.WithLabelValues(string(r.Listener), r.Path).Observe(took.Seconds())
	attrs = append(attrs, slog.String("code", code), slog.Duration("took", took))
	s.Logger.LogAttrs(ctx, level, "request", attrs...)
}
