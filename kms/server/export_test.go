package server

import "github.com/prometheus/client_golang/prometheus"

// Gatherer shows the metrics to the test that documents them.
func (m *Metrics) Gatherer() prometheus.Gatherer { return m.registry }
