package server

import (
	"context"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
)

// Gatherer shows the metrics to the test that documents them.
func (m *Metrics) Gatherer() prometheus.Gatherer { return m.registry }

// ServeOperator serves a request as if it came from peer.
func (s *Server) ServeOperator(w http.ResponseWriter, r *http.Request, peer Peer) {
	s.operators.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), peerKey{}, peer)))
}
