package telemetry

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/walpost/walpost/relay"
)

func noon() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

func busy() relay.Status {
	return relay.Status{
		State:          relay.Streaming,
		Since:          noon().Add(-time.Hour),
		Heartbeat:      noon(),
		ServerLSN:      5000,
		ConfirmedLSN:   4000,
		InFlightEvents: 7,
		InFlightBytes:  700,
		OldestUnacked:  noon().Add(-1500 * time.Millisecond),
		LastProgress:   noon().Add(-time.Second),
		Conditions:     []relay.Condition{{Name: "backpressured", Severity: relay.Warning}},
	}
}

func testMetrics(status relay.Status) *Metrics {
	m := NewMetrics("orders", "0", BuildInfo{Version: "v1.2.3", Revision: "abc", GoVersion: "go1.26"}, func() relay.Status { return status })
	m.now = noon
	return m
}

func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("scrape: %d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func wantSeries(t *testing.T, page string, series ...string) {
	t.Helper()
	for _, s := range series {
		if !strings.Contains(page, "\n"+s+"\n") {
			name, _, _ := strings.Cut(s, "{")
			got := regexp.MustCompile(`(?m)^`+name+`\{.*$`).FindAllString(page, -1)
			t.Errorf("no series %s; there are:\n%s", s, strings.Join(got, "\n"))
		}
	}
}

func TestSeries(t *testing.T) {
	m := testMetrics(busy())
	m.Read(10)
	m.Settled("outbox.event.order", 3, 400*time.Microsecond, false)
	m.Settled("outbox.event.order", 2, 2*time.Hour, false)
	m.Settled("outbox.event.order", 4, time.Second, true)
	m.Restarted("kafka_unreachable")
	m.Restarted("something else")
	const own = `pipeline="orders",shard="0"`
	wantSeries(t, scrape(t, m),
		`walpost_events_read_total{`+own+`} 10`,
		`walpost_events_published_total{`+own+`,topic="outbox.event.order"} 5`,
		`walpost_duplicates_skipped_total{`+own+`} 4`,
		`walpost_event_commit_to_ack_seconds_bucket{`+own+`,le="0.00025"} 0`,
		`walpost_event_commit_to_ack_seconds_bucket{`+own+`,le="0.0005"} 3`,
		`walpost_event_commit_to_ack_seconds_bucket{`+own+`,le="3600"} 3`,
		`walpost_event_commit_to_ack_seconds_bucket{`+own+`,le="+Inf"} 5`,
		`walpost_event_commit_to_ack_seconds_count{`+own+`} 5`,
		`walpost_event_commit_to_ack_seconds_sum{`+own+`} 14400.0012`,
		`walpost_replication_lag_bytes{`+own+`} 1000`,
		`walpost_oldest_unacked_event_age_seconds{`+own+`} 1.5`,
		`walpost_in_flight_events{`+own+`} 7`,
		`walpost_in_flight_bytes{`+own+`} 700`,
		`walpost_server_lsn_bytes{`+own+`} 5000`,
		`walpost_confirmed_lsn_bytes{`+own+`} 4000`,
		`walpost_pipeline_restarts_total{pipeline="orders",reason="kafka_unreachable",shard="0"} 1`,
		`walpost_pipeline_restarts_total{pipeline="orders",reason="error",shard="0"} 1`,
		`walpost_pipeline_restarts_total{pipeline="orders",reason="postgres_unreachable",shard="0"} 0`,
		fmt.Sprintf(`walpost_last_progress_timestamp_seconds{%s} %v`, own, float64(noon().Add(-time.Second).Unix())),
		`walpost_role{pipeline="orders",role="streaming",shard="0"} 1`,
		`walpost_role{pipeline="orders",role="standby",shard="0"} 0`,
		`walpost_condition{condition="backpressured",`+own+`} 1`,
		`walpost_condition{condition="slot_lost",`+own+`} 0`,
		`walpost_build_info{go_version="go1.26",pipeline="orders",revision="abc",shard="0",version="v1.2.3"} 1`,
	)
}

func TestEverySeriesIsLabelled(t *testing.T) {
	m := testMetrics(busy())
	m.Settled("t", 1, 0, false)
	page := scrape(t, m)
	for line := range strings.SplitSeq(strings.TrimSpace(page), "\n") {
		if !strings.HasPrefix(line, "#") && (!strings.Contains(line, `pipeline="orders"`) || !strings.Contains(line, `shard="0"`)) {
			t.Errorf("no pipeline and shard: %s", line)
		}
	}
	for _, d := range metricDefinitions() {
		if !strings.Contains(page, "# TYPE "+d.name+" "+d.kind+"\n") {
			t.Errorf("%s is not exported as a %s", d.name, d.kind)
		}
	}
}

func TestUnknownIsLeftOut(t *testing.T) {
	page := scrape(t, testMetrics(relay.Status{State: relay.Starting}))
	for _, name := range []string{"walpost_server_lsn_bytes", "walpost_confirmed_lsn_bytes", "walpost_replication_lag_bytes", "walpost_last_progress_timestamp_seconds"} {
		if strings.Contains(page, name) {
			t.Errorf("%s is exported before it is known", name)
		}
	}
	wantSeries(t, page, `walpost_oldest_unacked_event_age_seconds{pipeline="orders",shard="0"} 0`)
}

// A server's position may be older than what was confirmed, and clocks differ.
func TestNeverNegative(t *testing.T) {
	s := busy()
	s.ServerLSN, s.OldestUnacked = 3000, noon().Add(time.Minute)
	wantSeries(t, scrape(t, testMetrics(s)),
		`walpost_replication_lag_bytes{pipeline="orders",shard="0"} 0`,
		`walpost_oldest_unacked_event_age_seconds{pipeline="orders",shard="0"} 0`)
}

func TestTopicsAreCapped(t *testing.T) {
	m := testMetrics(busy())
	for i := range 3 * maxTopics {
		m.Settled(fmt.Sprintf("topic-%d", i), 1, 0, false)
	}
	m.Settled("topic-0", 1, 0, false)
	page := scrape(t, m)
	if n := strings.Count(page, "\nwalpost_events_published_total{"); n != maxTopics+1 {
		t.Errorf("%d series, want %d", n, maxTopics+1)
	}
	wantSeries(t, page,
		`walpost_events_published_total{pipeline="orders",shard="0",topic="topic-0"} 2`,
		fmt.Sprintf(`walpost_events_published_total{pipeline="orders",shard="0",topic="_other"} %d`, 2*maxTopics))
}

func TestObserverDoesNotAllocate(t *testing.T) {
	m := testMetrics(busy())
	topics := []string{"a", "b", "c"}
	for i := range maxTopics + 1 {
		m.Settled(fmt.Sprintf("topic-%d", i), 1, 0, false)
	}
	for name, call := range map[string]func(){
		"Read":               func() { m.Read(100) },
		"Settled":            func() { m.Settled("topic-7", 10, time.Millisecond, false) },
		"Settled beyond cap": func() { m.Settled(topics[0], 10, time.Millisecond, false) },
		"Settled duplicate":  func() { m.Settled(topics[1], 10, time.Millisecond, true) },
		"Restarted":          func() { m.Restarted("kafka_unreachable") },
	} {
		if n := testing.AllocsPerRun(1000, call); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

// The topic may be lent memory that is overwritten after the call.
func TestTopicIsCopied(t *testing.T) {
	m := testMetrics(busy())
	lent := []byte("first")
	m.Settled(unsafe.String(&lent[0], len(lent)), 1, 0, false) // #nosec G103 -- the very thing under test
	copy(lent, "other")
	wantSeries(t, scrape(t, m), `walpost_events_published_total{pipeline="orders",shard="0",topic="first"} 1`)
}

func TestConcurrentUse(t *testing.T) {
	m := testMetrics(busy())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 500 {
				m.Settled(fmt.Sprintf("topic-%d", i%50), 1, time.Millisecond, false)
				m.Read(1)
			}
		})
	}
	wg.Go(func() {
		for range 5 {
			scrape(t, m)
		}
	})
	wg.Wait()
	wantSeries(t, scrape(t, m),
		`walpost_events_read_total{pipeline="orders",shard="0"} 2000`,
		`walpost_event_commit_to_ack_seconds_count{pipeline="orders",shard="0"} 2000`)
}

func TestPromlint(t *testing.T) {
	m := testMetrics(busy())
	m.Settled("t", 1, 0, false)
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "walpost_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

const metricsFile = "../../docs/metrics.md"

func metricsMarkdown() string {
	var b bytes.Buffer
	b.WriteString(`# Metrics

<!-- Generated from internal/telemetry/definitions.go: go test ./internal/telemetry -run TestDocs -update -->

` + "`/metrics` on `http.listen`" + ` serves these to Prometheus, together with the usual ` + "`go_*` and `process_*`" + ` of the process. Names and labels are stable.
Every series also has the labels ` + "`pipeline` and `shard`" + `.

| Metric | Type | Labels | Meaning |
|---|---|---|---|
`)
	for _, d := range metricDefinitions() {
		labels := "–"
		if len(d.labels) > 0 {
			labels = "`" + strings.Join(d.labels, "`, `") + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s %s |\n", d.name, d.kind, labels, d.help, d.use)
	}
	b.WriteString("\nConditions, the values of `walpost_condition`'s label and of `reason`:\n\n")
	for _, name := range relay.ConditionNames() {
		fmt.Fprintf(&b, "- `%s`\n", name)
	}
	return b.String()
}

func TestDocsAreCurrent(t *testing.T) {
	want := metricsMarkdown()
	if updateFlag() {
		if err := os.WriteFile(metricsFile, []byte(want), 0o644); err != nil { // #nosec G306 -- a document
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(metricsFile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("docs/metrics.md differs from the definitions; run this test with -update (-want +got):\n%s", diff)
	}
}

func TestHistogramMillionEventsAtOnce(t *testing.T) {
	h := newHistogram(latencyBounds())
	h.observe(time.Hour, 1_000_000_000) // would overflow a sum in nanoseconds
	total, sum, buckets := h.snapshot()
	if total != 1_000_000_000 || sum != 3.6e12 || buckets[3600] != total || buckets[900] != 0 {
		t.Errorf("total %d, sum %v, buckets %v", total, sum, buckets)
	}
}

func TestReadBuild(t *testing.T) {
	b := ReadBuild()
	if b.Version == "" || b.Revision == "" || !strings.HasPrefix(b.GoVersion, "go") {
		t.Errorf("build %+v", b)
	}
}

func TestServeMetricsBesideHealth(t *testing.T) {
	m := testMetrics(busy())
	h := Handler(busy, m.Handler())
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "walpost_role") {
		t.Errorf("/metrics: %d", w.Code)
	}
}
