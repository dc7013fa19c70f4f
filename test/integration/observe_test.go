package integration

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/walpost/walpost/relay"
	"github.com/walpost/walpost/test/harness"
)

// TestMetricsTellWhatHappened: what was committed was read, published, timed
// and confirmed, and the numbers agree.
func TestMetricsTellWhatHappened(t *testing.T) {
	p := prepared(t, harness.Postgres(t, harness.Newest))
	r := p.start()
	idle := scrape(t, r)
	for _, name := range relay.ConditionNames() {
		if v, exported := idle[fmt.Sprintf(`walpost_condition{condition="%s"}`, name)]; !exported || v != 0 {
			t.Errorf("condition %s: exported %v, value %v", name, exported, v)
		}
	}
	for _, state := range relay.States() {
		want := 0.0
		if state == relay.Streaming {
			want = 1
		}
		if v, exported := idle[fmt.Sprintf(`walpost_role{role="%s"}`, state)]; !exported || v != want {
			t.Errorf("role %s: exported %v, value %v", state, exported, v)
		}
	}
	if idle.sum("walpost_build_info") != 1 {
		t.Error("no walpost_build_info")
	}

	load := harness.StartLoad(t, p.pg, harness.LoadConfig{Rate: 200})
	load.AwaitCommitted(500, patience)
	p.finish(load)
	committed := float64(load.Committed())
	var after series
	harness.Eventually(t, patience, "metrics at rest", func() error {
		if after = scrape(t, r); after["walpost_in_flight_events"] != 0 {
			return fmt.Errorf("%v in flight", after["walpost_in_flight_events"])
		}
		return nil
	})
	for name, want := range map[string]float64{
		"walpost_events_read_total": committed,
		fmt.Sprintf(`walpost_events_published_total{topic="%s"}`, p.topic("order")): committed,
		"walpost_event_commit_to_ack_seconds_count":                                 committed,
		`walpost_event_commit_to_ack_seconds_bucket{le="+Inf"}`:                     committed,
		"walpost_in_flight_bytes":                                                   0,
		"walpost_oldest_unacked_event_age_seconds":                                  0,
		"walpost_duplicates_skipped_total":                                          0,
		"walpost_confirmed_lsn_bytes":                                               float64(p.confirmed()),
		`walpost_pipeline_restarts_total{reason="kafka_unreachable"}`:               0,
		`walpost_role{role="streaming"}`:                                            1,
	} {
		if got, exported := after[name]; !exported || got != want {
			t.Errorf("%s: exported %v, value %v, want %v", name, exported, got, want)
		}
	}
	for _, name := range []string{"walpost_confirmed_lsn_bytes", "walpost_server_lsn_bytes", "walpost_last_progress_timestamp_seconds", "walpost_event_commit_to_ack_seconds_sum"} {
		if after[name] <= idle[name] {
			t.Errorf("%s has not moved: %v, then %v", name, idle[name], after[name])
		}
	}
	if lag, exported := after["walpost_replication_lag_bytes"]; !exported || lag < 0 || lag != after["walpost_server_lsn_bytes"]-after["walpost_confirmed_lsn_bytes"] {
		t.Errorf("walpost_replication_lag_bytes: exported %v, value %v", exported, lag)
	}
}

func TestHealthPages(t *testing.T) {
	p := prepared(t, harness.Postgres(t, harness.Newest))
	r := p.start()
	for path, want := range map[string]struct {
		code int
		says string
	}{
		"/livez":                       {http.StatusOK, "ok"},
		"/healthz":                     {http.StatusOK, "ok"},
		"/readyz":                      {http.StatusOK, "ok"},
		"/readyz?verbose":              {http.StatusOK, "state streaming since "},
		"/readyz?exclude=slot_busy":    {http.StatusOK, "ok"},
		"/readyz?exclude=no_such_name": {http.StatusBadRequest, "kafka_unreachable"},
		"/metrics":                     {http.StatusOK, "walpost_build_info"},
		"/":                            {http.StatusNotFound, ""},
	} {
		code, body, err := r.Get(path)
		if err != nil || code != want.code || !strings.Contains(body, want.says) {
			t.Errorf("%s: code %d, %q, %v; want %d with %q", path, code, body, err, want.code, want.says)
		}
	}
}

// TestNothingLeaks: key, payload and password of an application never show, not
// even where the relay stops because of the very event, at the most talkative
// level.
func TestNothingLeaks(t *testing.T) {
	p := prepared(t, harness.Postgres(t, harness.Newest))
	p.set("log.level", "debug")
	p.set("kafka.max_message_bytes", "64KiB")
	p.set("postgres.url", strings.Replace(p.pg.URL, "postgres@", "postgres:marked-password@", 1))
	r := p.start()
	p.commit(harness.Event{ID: eventID(1), Key: "marked-key", Value: `{"n": "marked-payload"}`})
	p.await(1)
	p.exec("select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1", p.name)
	progresses(t, r, 0)
	r.WaitReady(patience)
	_, pages, _ := r.Get("/readyz?verbose")
	_, metrics, _ := r.Get("/metrics")
	p.commit(harness.Event{ID: eventID(2), Key: "marked-key", Value: `"` + strings.Repeat("marked-payload", 10_000) + `"`})
	log := p.ends(r, 1, "poison_event")

	if !strings.Contains(log, eventID(2)) {
		t.Error("the event that stopped the relay is not named")
	}
	for _, secret := range []string{"marked-key", "marked-payload", "marked-password"} {
		if strings.Contains(log+pages+metrics, secret) {
			t.Errorf("%s shows in the log or on a page", secret)
		}
	}
}

func TestLogFormats(t *testing.T) {
	p := prepared(t, harness.Postgres(t, harness.Newest))
	r := p.start()
	p.stop(r)
	lines := logLines(t, r) // auto, and no terminal: JSON
	if len(lines) < 3 || lines[0].Level != "INFO" || lines[0].Time.IsZero() {
		t.Errorf("log lines %+v", lines)
	}

	p.set("log.format", "text")
	r = p.start()
	p.stop(r)
	for line := range strings.Lines(r.Log()) {
		if !strings.HasPrefix(line, "time=") || !strings.Contains(line, " level=INFO msg=") {
			t.Errorf("line %q is not of slog's text form", line)
		}
	}
}
