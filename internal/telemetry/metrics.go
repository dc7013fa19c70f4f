package telemetry

import (
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/walpost/walpost/relay"
)

const (
	// maxTopics bounds the series of one metric: topics are made of data.
	maxTopics = 200
	// otherTopics stands for the topics beyond.
	otherTopics = "_other"
	// otherReason stands for restarts that no condition explains.
	otherReason = "error"
)

// Metrics counts what a relay does and shows it to Prometheus. It is a
// relay.Observer whose methods neither block nor, once a topic is known,
// allocate.
type Metrics struct {
	registry *prometheus.Registry
	descs    map[string]*prometheus.Desc
	build    BuildInfo
	status   func() relay.Status
	now      func() time.Time

	read       atomic.Uint64
	duplicates atomic.Uint64
	latency    *histogram
	restarts   map[string]*atomic.Uint64 // fixed at the start

	// published is replaced, never written to, so that counting takes no lock.
	published atomic.Pointer[map[string]*atomic.Uint64]
	growing   sync.Mutex // held while published is replaced
}

var (
	_ relay.Observer       = (*Metrics)(nil)
	_ prometheus.Collector = (*Metrics)(nil)
)

// NewMetrics returns the metrics of one relay. status is called at each
// scrape; it must be safe for concurrent use.
func NewMetrics(pipeline, shard string, build BuildInfo, status func() relay.Status) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		descs:    map[string]*prometheus.Desc{},
		build:    build,
		status:   status,
		now:      time.Now,
		latency:  newHistogram(latencyBounds()),
		restarts: map[string]*atomic.Uint64{otherReason: {}},
	}
	for _, d := range metricDefinitions() {
		m.descs[d.name] = prometheus.NewDesc(d.name, d.help, d.labels, nil)
	}
	for _, reason := range relay.ConditionNames() {
		m.restarts[reason] = &atomic.Uint64{}
	}
	m.published.Store(&map[string]*atomic.Uint64{})
	labelled := prometheus.WrapRegistererWith(prometheus.Labels{"pipeline": pipeline, "shard": shard}, m.registry)
	labelled.MustRegister(m, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Handler serves the metrics in Prometheus's formats.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// Read implements [relay.Observer].
func (m *Metrics) Read(events int) { m.read.Add(count(events)) }

// Settled implements [relay.Observer].
func (m *Metrics) Settled(topic string, n int, sinceCommit time.Duration, duplicate bool) {
	if duplicate {
		m.duplicates.Add(count(n))
		return
	}
	counter := (*m.published.Load())[topic]
	if counter == nil {
		counter = m.newTopic(topic)
	}
	counter.Add(count(n))
	m.latency.observe(sinceCommit, count(n))
}

// Skipped implements [relay.Observer].
func (m *Metrics) Skipped(events int) { m.duplicates.Add(count(events)) }

// Restarted implements [relay.Observer].
func (m *Metrics) Restarted(reason string) {
	counter := m.restarts[reason]
	if counter == nil {
		counter = m.restarts[otherReason]
	}
	counter.Add(1)
}

func count(n int) uint64 { return uint64(max(n, 0)) }

// newTopic returns the counter of a topic that was not there a moment ago.
// Topics beyond maxTopics come here each time: a lock, but no memory.
func (m *Metrics) newTopic(topic string) *atomic.Uint64 {
	m.growing.Lock()
	defer m.growing.Unlock()
	known := *m.published.Load()
	if counter := known[topic]; counter != nil {
		return counter
	}
	if len(known) >= maxTopics {
		topic = otherTopics
		if counter := known[topic]; counter != nil {
			return counter
		}
	}
	grown := maps.Clone(known)
	counter := &atomic.Uint64{}
	grown[strings.Clone(topic)] = counter // the caller's bytes may be lent
	m.published.Store(&grown)
	return counter
}

// Describe implements [prometheus.Collector].
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range m.descs {
		ch <- desc
	}
}

// Collect implements [prometheus.Collector].
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	out := output{ch: ch, descs: m.descs}
	m.collectCounts(out)
	s := m.status()
	m.collectPositions(out, s)
	m.collectStates(out, s)
}

func (m *Metrics) collectCounts(out output) {
	out.counter("walpost_events_read_total", m.read.Load())
	out.counter("walpost_duplicates_skipped_total", m.duplicates.Load())
	for topic, counter := range *m.published.Load() {
		out.counter("walpost_events_published_total", counter.Load(), topic)
	}
	for reason, counter := range m.restarts {
		out.counter("walpost_pipeline_restarts_total", counter.Load(), reason)
	}
	total, sum, buckets := m.latency.snapshot()
	out.ch <- prometheus.MustNewConstHistogram(m.descs["walpost_event_commit_to_ack_seconds"], total, sum, buckets)
}

// collectPositions leaves out what is not known yet: an unknown lag must not
// look like none.
func (m *Metrics) collectPositions(out output, s relay.Status) {
	if s.ServerLSN > 0 {
		out.gauge("walpost_server_lsn_bytes", float64(s.ServerLSN))
	}
	if s.ConfirmedLSN > 0 {
		out.gauge("walpost_confirmed_lsn_bytes", float64(s.ConfirmedLSN))
	}
	if s.ServerLSN > 0 && s.ConfirmedLSN > 0 {
		out.gauge("walpost_replication_lag_bytes", float64(max(s.ServerLSN, s.ConfirmedLSN)-s.ConfirmedLSN))
	}
	out.gauge("walpost_in_flight_events", float64(s.InFlightEvents))
	out.gauge("walpost_in_flight_bytes", float64(s.InFlightBytes))
	age := time.Duration(0)
	if !s.OldestUnacked.IsZero() {
		age = max(0, m.now().Sub(s.OldestUnacked))
	}
	out.gauge("walpost_oldest_unacked_event_age_seconds", age.Seconds())
	if !s.LastProgress.IsZero() {
		out.gauge("walpost_last_progress_timestamp_seconds", float64(s.LastProgress.UnixMilli())/1e3)
	}
}

func (m *Metrics) collectStates(out output, s relay.Status) {
	for _, state := range relay.States() {
		out.gauge("walpost_role", boolean(state == s.State), string(state))
	}
	holds := map[string]bool{}
	for _, c := range s.Conditions {
		holds[c.Name] = true
	}
	for _, name := range relay.ConditionNames() {
		out.gauge("walpost_condition", boolean(holds[name]), name)
	}
	out.gauge("walpost_build_info", 1, m.build.Version, m.build.Revision, m.build.GoVersion)
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// output sends constant metrics to one scrape.
type output struct {
	ch    chan<- prometheus.Metric
	descs map[string]*prometheus.Desc
}

func (o output) counter(name string, value uint64, labels ...string) {
	o.ch <- prometheus.MustNewConstMetric(o.descs[name], prometheus.CounterValue, float64(value), labels...)
}

func (o output) gauge(name string, value float64, labels ...string) {
	o.ch <- prometheus.MustNewConstMetric(o.descs[name], prometheus.GaugeValue, value, labels...)
}
