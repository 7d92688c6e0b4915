package server

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"keywright.dev/kms"
	"keywright.dev/kms/root"
)

// Metrics are the numbers that the service shows on its metrics listener. None
// names a machine.
type Metrics struct {
	registry *prometheus.Registry

	requests    *prometheus.CounterVec
	seconds     *prometheus.HistogramVec
	releases    prometheus.Counter
	refusals    *prometheus.CounterVec
	challenges  *prometheus.CounterVec
	turnedAway  prometheus.Counter
	store       prometheus.Histogram
	sequencing  prometheus.Histogram
	sequenceErr prometheus.Counter
	rootCalls   *prometheus.CounterVec
}

// NewMetrics returns metrics in a registry of their own.
func NewMetrics() *Metrics {
	fine := prometheus.ExponentialBuckets(0.0005, 2, 14) // 0.5 ms to 4 s
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keywright_requests_total", Help: "Requests answered, by listener, route and code; code is ok or an error code.",
		}, []string{"listener", "route", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "keywright_request_seconds", Help: "Time from a request's header to its answer.", Buckets: fine,
		}, []string{"listener", "route"}),
		releases: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "keywright_releases_total", Help: "Boot releases answered with keys.",
		}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keywright_refusals_total", Help: "Requests of guests refused by the domain, by route and code.",
		}, []string{"route", "code"}),
		challenges: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keywright_challenges_total", Help: "Challenges by route and event: issued, or redeemed by a statement that was accepted.",
		}, []string{"route", "event"}),
		turnedAway: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "keywright_connections_turned_away_total", Help: "Guest connections closed because there were too many.",
		}),
		store: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "keywright_store_transaction_seconds", Help: "Time from a change's beginning until it is durable, the wait for its turn included.", Buckets: fine,
		}),
		sequencing: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "keywright_audit_sequencing_seconds", Help: "Time of one round that brought entries into the audit log's tree.", Buckets: fine,
		}),
		sequenceErr: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "keywright_audit_sequencing_errors_total", Help: "Sequencing rounds that failed. Not zero: look at the service's log.",
		}),
		rootCalls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keywright_root_calls_total", Help: "Calls of roots of trust, by root, operation and result: ok, unavailable, refused, does_not_open or failed.",
		}, []string{"root", "operation", "result"}),
	}
	m.registry.MustRegister(
		m.requests, m.seconds, m.releases, m.refusals, m.challenges, m.turnedAway,
		m.store, m.sequencing, m.sequenceErr, m.rootCalls,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

// Transaction is for whoever wires the store: one change took so long.
func (m *Metrics) Transaction(took time.Duration) { m.store.Observe(took.Seconds()) }

// RootCall is for whoever wires the roots: one was called, with this error.
func (m *Metrics) RootCall(uri, operation string, err error) {
	result := "failed"
	switch {
	case err == nil:
		result = "ok"
	case errors.Is(err, root.ErrUnavailable):
		result = "unavailable"
	case errors.Is(err, root.ErrRefused):
		result = "refused"
	case errors.Is(err, root.ErrDoesNotOpen):
		result = "does_not_open"
	}
	m.rootCalls.WithLabelValues(uri, operation, result).Inc()
}

// leastLease returns the seconds that a keyring version is held at least; 0 where
// one is closed.
func leastLease(leases []kms.LeaseState) float64 {
	if len(leases) == 0 {
		return 0
	}
	least := slices.MinFunc(leases, func(a, b kms.LeaseState) int { return cmp.Compare(a.Left, b.Left) })
	return least.Left.Seconds()
}

// gauge is a number that is read when somebody asks for it.
func (m *Metrics) gauge(name, help string, labels prometheus.Labels, read func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(
		prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, read))
}

// counter reads the store's counts when somebody asks for the metrics.
type counter struct {
	read func(ctx context.Context) (kms.Counts, error)

	machines, measurements, volumes, secrets, alarms, entries, waiting *prometheus.Desc
}

func newCounter(read func(context.Context) (kms.Counts, error)) *counter {
	return &counter{
		read:         read,
		machines:     prometheus.NewDesc("keywright_machines", "Machines, by status.", []string{"status"}, nil),
		measurements: prometheus.NewDesc("keywright_measurements", "Measurements, by status.", []string{"status"}, nil),
		volumes:      prometheus.NewDesc("keywright_volumes", "Volumes.", nil, nil),
		secrets:      prometheus.NewDesc("keywright_secrets", "Versions of volumes' secrets.", nil, nil),
		alarms: prometheus.NewDesc("keywright_alarms",
			"Open alarms: machines refused for counters that went back, volumes whose key another machine has, volumes with a foreign slot or token.", []string{"kind"}, nil),
		entries: prometheus.NewDesc("keywright_audit_entries", "Entries of the audit log.", nil, nil),
		waiting: prometheus.NewDesc("keywright_audit_unsequenced", "Entries that are durable and signed but not in the tree yet.", nil, nil),
	}
}

// Describe implements [prometheus.Collector].
func (c *counter) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.machines, c.measurements, c.volumes, c.secrets, c.alarms, c.entries, c.waiting} {
		out <- d
	}
}

// countTimeout bounds what a scrape asks of the store.
const countTimeout = 5 * time.Second

// Collect implements [prometheus.Collector].
func (c *counter) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), countTimeout)
	defer cancel()
	counts, err := c.read(ctx)
	if err != nil {
		out <- prometheus.NewInvalidMetric(c.entries, err)
		return
	}
	gauge := func(d *prometheus.Desc, n int64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	for status, n := range counts.Machines {
		gauge(c.machines, n, string(status))
	}
	for status, n := range counts.Measurements {
		gauge(c.measurements, n, string(status))
	}
	for _, kind := range kms.Alarms() {
		gauge(c.alarms, counts.Alarms[kind], string(kind))
	}
	gauge(c.volumes, counts.Volumes)
	gauge(c.secrets, counts.Secrets)
	gauge(c.entries, counts.Entries)
	gauge(c.waiting, counts.Entries-counts.Sequenced)
}
