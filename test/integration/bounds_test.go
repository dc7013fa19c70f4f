package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/test/harness"
)

// bounded is what the memory of a relay may grow by, in MiB, while it holds back
// what it has no room for: far less than is written in these tests.
const bounded = 100 * raceFactor

// watchMemory returns a function that ends watching and says by how many MiB
// the relay's memory has grown at most.
func watchMemory(t *testing.T, relay *harness.Relay) func() float64 {
	t.Helper()
	before := float64(rss(relay.Pid())) / 1024
	watched := startSampler(t, relay)
	return func() float64 {
		t.Helper()
		top := watched.end().most(func(x sample) float64 { return float64(x.rss) / 1024 })
		return max(0, top-before)
	}
}

// TestOneHugeTransaction has forty times as many rows as may be in flight.
func TestOneHugeTransaction(t *testing.T) {
	const rows, keys = 300_000, 11
	p := prepared(t, harness.Postgres(t, harness.Newest))
	p.set("limits.max_in_flight_bytes", "8MiB")
	relay := p.start()
	grown := watchMemory(t, relay)
	start := time.Now()
	p.exec(fmt.Sprintf(`insert into outbox (id, aggregatetype, aggregateid, type, payload)
		select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'order', 'key-' || n %% %d, 'Huge', jsonb_build_object('n', n, 'pad', repeat('x', 280))
		from generate_series(0, %d) n`, keys, rows-1))
	written := time.Since(start)
	ledger := harness.NewLedger()
	p.settle(ledger)
	took := time.Since(start)

	mib := grown()
	figure(t, "%d rows written in %s, confirmed in %s; resident memory grew by %.0f MiB", rows, written.Round(time.Millisecond), took.Round(time.Millisecond), mib)
	if mib > bounded {
		t.Errorf("memory grew by %.0f MiB, more than %d", mib, bounded)
	}
	records := p.published()
	next := map[string]int{}
	for n := range keys {
		next[fmt.Sprint("key-", n)] = n
	}
	for _, r := range records {
		key := string(r.Key)
		if key == "the-last" {
			continue
		}
		if want := eventID(next[key]); r.Header(outbox.HeaderID) != want || !strings.Contains(string(r.Value), fmt.Sprintf(`"n": %d,`, next[key])) || len(r.Value) < 280 {
			t.Fatalf("event %s of %s, want %s", r.Header(outbox.HeaderID), key, want)
		}
		next[key] += keys
	}
	if len(records) != rows+1 {
		t.Errorf("%d records, want %d", len(records), rows+1)
	}
}

// TestLargePayloads are 200 of 1 MB, six times what may be in flight.
func TestLargePayloads(t *testing.T) {
	const rows, size = 200, 1_000_000
	p := prepared(t, harness.Postgres(t, harness.Newest))
	relay := p.start()
	grown := watchMemory(t, relay)
	ledger := harness.NewLedger()
	for n := range rows {
		e := harness.Event{ID: eventID(n), Key: fmt.Sprint("key-", n%3), Value: `"` + strings.Repeat(string(rune('a'+n%26)), size) + `"`}
		p.commit(e)
		ledger.Commit(e)
	}
	p.settle(ledger)
	mib := grown()
	figure(t, "%d payloads of %d bytes; resident memory grew by %.0f MiB", rows, size, mib)
	if mib > bounded {
		t.Errorf("memory grew by %.0f MiB, more than %d", mib, bounded)
	}
	if report := p.verify(ledger); report.Duplicates != 0 {
		t.Errorf("%d came twice", report.Duplicates)
	}
}

// TestFrozenKafkaUnderFullLoad: the limits hold, the rest waits in Postgres, and
// the replication session stays alive although nothing is read from it.
func TestFrozenKafkaUnderFullLoad(t *testing.T) {
	const maxEvents, maxBytes = 2000, 1 << 20 // a batch has 1024 rows at most
	kafka := harness.DedicatedKafka(t, harness.Newest)
	pg := harness.Postgres(t, harness.Newest)
	p := newPipelineTo(t, pg, kafka.Broker)
	p.exec(outboxTable)
	p.initialise()
	p.set("limits.max_in_flight_events", maxEvents)
	p.set("limits.max_in_flight_bytes", maxBytes)
	p.set("kafka.max_message_bytes", "512KiB")
	relay := p.start()
	watched := startSampler(t, relay)
	load := harness.StartLoad(t, p.pg, harness.LoadConfig{MaxRows: 20})
	progresses(t, relay, 2000)
	session := p.session()

	kafka.Pause()
	lasting(t, relay, 10*time.Second)
	if now := p.session(); now != session {
		t.Errorf("the replication session is another: %s, was %s", now, session)
	}
	kafka.Unpause()
	progresses(t, relay, 1000)
	p.finish(load)

	seen := watched.end()
	events, bytes := seen.most(func(x sample) float64 { return x.events }), seen.most(func(x sample) float64 { return x.bytes })
	figure(t, "in flight at most %.0f events of %d, %.0f bytes of %d", events, maxEvents, bytes, maxBytes)
	if events > maxEvents || bytes > maxBytes {
		t.Error("more was in flight than the limits allow")
	}
	if events < maxEvents/4 {
		t.Error("the limit was not put to the test")
	}
}

// session identifies the walsender that has the slot; empty if none has.
func (p *pipeline) session() string {
	p.t.Helper()
	return harness.Value[string](p.t, p.pg, `select coalesce((select s.active_pid || ' since ' || a.backend_start
		from pg_replication_slots s join pg_stat_activity a on a.pid = s.active_pid where slot_name = $1), '')`, p.name)
}
