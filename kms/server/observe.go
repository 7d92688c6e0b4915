package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"keywright.dev/kms"
	"keywright.dev/kms/api"
)

// observerRoute is one path of the metrics listener.
type observerRoute struct {
	Route
	handler http.Handler
}

// readyTimeout bounds what readiness asks of the store.
const readyTimeout = 2 * time.Second

// Readiness is the answer of the ready path.
type Readiness struct {
	Ready   bool     `json:"ready"`
	Reasons []string `json:"reasons"`
	// Degraded says what is wrong that stops nothing yet.
	Degraded []string `json:"degraded"`
}

// observerRoutes are the routes of the metrics listener.
func observerRoutes(s *Server) []observerRoute {
	route := func(path, summary string, handler http.Handler) observerRoute {
		return observerRoute{Route{MetricsListener, http.MethodGet, path, ActionObserve, summary}, handler}
	}
	return []observerRoute{
		route(api.PathMetrics, "Metrics in Prometheus' text format.",
			promhttp.HandlerFor(s.Metrics.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})),
		route(api.PathHealth, "Answers while the process lives.", http.HandlerFunc(s.serveHealth)),
		route(api.PathReady, "Answers 200 while requests can be served, else 503.", http.HandlerFunc(s.serveReady)),
	}
}

func newObservers(s *Server, routes []observerRoute) http.Handler {
	byPath := make(map[string]observerRoute)
	for _, r := range routes {
		byPath[r.Path] = r
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		route, ok := byPath[r.URL.EscapedPath()]
		switch {
		case !ok:
			writeFailure(w, s.requestID(), fail(api.CodeNotFound))
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			writeFailure(w, s.requestID(), fail(api.CodeMethod))
		default:
			route.handler.ServeHTTP(w, r)
		}
	})
}

func (s *Server) serveHealth(w http.ResponseWriter, _ *http.Request) {
	_ = writeJSON(w, s.requestID(), http.StatusOK, struct{}{}) // a caller that is gone misses nothing
}

func (s *Server) serveReady(w http.ResponseWriter, r *http.Request) {
	reasons := s.notReady(r.Context())
	status := http.StatusOK
	if len(reasons) > 0 {
		status = http.StatusServiceUnavailable
	}
	_ = writeJSON(w, s.requestID(), status, Readiness{len(reasons) == 0, reasons, s.degraded()}) // as above
}

// notReady returns why requests cannot be served; nothing while they can.
func (s *Server) notReady(ctx context.Context) []string {
	reasons := s.notAnswering(ctx)
	if err := s.Store.LastFailure(); err != nil {
		reasons = append(reasons, fmt.Sprintf("the last change could not be written: %v", err))
	}
	if !slices.ContainsFunc(s.Leases(), func(l kms.LeaseState) bool { return l.Left > 0 }) {
		reasons = append(reasons, "no keyring is open, and no root of trust opens one: every boot is refused")
	}
	return reasons
}

// degraded returns what is wrong with the roots while boots go on.
func (s *Server) degraded() []string {
	degraded := []string{}
	for _, l := range s.Leases() {
		switch {
		case l.Left == 0 && l.Err != nil:
			degraded = append(degraded, fmt.Sprintf("keyring/%s@%d is closed: boots that need it are refused", l.Keyring, l.Version))
		case l.Err != nil:
			degraded = append(degraded, fmt.Sprintf("no root opens keyring/%s@%d: its key is held for %v still", l.Keyring, l.Version, l.Left.Round(time.Second)))
		}
	}
	return degraded
}

// notAnswering returns why not even what changes nothing can be served.
func (s *Server) notAnswering(ctx context.Context) []string {
	reasons := []string{}
	if !s.running.Load() {
		reasons = append(reasons, "it is starting or stopping")
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if _, _, err := s.Store.Head(ctx); err != nil {
		s.Logger.Warn("the store does not answer", "error", err)
		reasons = append(reasons, "the store does not answer")
	}
	if s.Store.Err() != nil {
		reasons = append(reasons, "the store takes no changes since writing to disk failed")
	}
	return reasons
}

// Ready returns why the server is not ready, as an error; nil while it is.
func (s *Server) Ready(ctx context.Context) error { return joined(s.notReady(ctx)) }

// Answers returns why the server answers nobody, as an error; nil while it
// does. One that answers and is not ready, such as on a full disk, is not mended
// by a restart.
func (s *Server) Answers(ctx context.Context) error { return joined(s.notAnswering(ctx)) }

func joined(reasons []string) error {
	var errs []error
	for _, reason := range reasons {
		errs = append(errs, errors.New(reason))
	}
	return errors.Join(errs...)
}
