package integration

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/test/harness"
)

// bothModes are pipelines that read the same table, one in each delivery mode:
// what one set of servers goes through, both must get over.
func bothModes(t *testing.T, pg *harness.PG, broker *harness.Broker) []*pipeline {
	t.Helper()
	var all []*pipeline
	for _, mode := range []string{"idempotent", "exactly-once"} {
		own := *broker
		own.Prefix += mode + "."
		p := newPipelineTo(t, pg, &own)
		p.set("kafka.brokers", own.Addrs)
		p.set("kafka.delivery", mode)
		if len(all) == 0 {
			p.exec(outboxTable)
		}
		p.initialise()
		all = append(all, p)
	}
	return all
}

// startAll starts a relay for each pipeline.
func startAll(pipelines []*pipeline) []*harness.Relay {
	var relays []*harness.Relay
	for _, p := range pipelines {
		relays = append(relays, p.start())
	}
	return relays
}

// allProgress waits until each relay has published n more events.
func allProgress(t *testing.T, relays []*harness.Relay, n float64) {
	t.Helper()
	for _, relay := range relays {
		progresses(t, relay, n)
	}
}

// finishAll judges what each pipeline made of the load.
func finishAll(t *testing.T, pipelines []*pipeline, load *harness.Load) {
	t.Helper()
	for _, p := range pipelines {
		report := p.finish(load)
		mode := p.settings["kafka.delivery"].(string)
		figure(t, "%s: %d events, %d missing, %d came twice", mode, report.Committed, len(report.Missing), report.Duplicates)
		if mode == "exactly-once" && report.Duplicates > 0 {
			t.Errorf("%d events came twice", report.Duplicates)
		}
	}
}

// TestAPromotionLosesNothing: with a synchronous standby that failover slots
// wait for, one primary after the other can be lost under load. The relay finds
// the new one by itself and goes on where it stopped.
func TestAPromotionLosesNothing(t *testing.T) {
	t.Parallel()
	pg := harness.ReplicatedPostgres(t, harness.Replication{Synchronous: true, Guarded: true})
	pipelines := bothModes(t, pg.PG, harness.Kafka(t))
	relays := startAll(pipelines)
	load := harness.StartLoad(t, pg.PG, harness.LoadConfig{Rate: 100})
	for promotion := range 2 {
		if promotion > 0 {
			pg.Rejoin()
		}
		for _, p := range pipelines {
			pg.AwaitSynced(p.name)
		}
		allProgress(t, relays, 200)

		start := time.Now()
		pg.Primary().Kill()
		pg.Promote()
		promoted := time.Now()
		allProgress(t, relays, 200)
		figure(t, "promoted within %s of the kill, both relays had published 200 events %s later",
			promoted.Sub(start).Round(time.Millisecond), time.Since(promoted).Round(time.Millisecond))
	}
	finishAll(t, pipelines, load)
}

// TestAPromotionThatLosesEvents: a standby that nobody waited for becomes the
// primary and lacks what was published. The relay stops, before it publishes or
// confirms anything, also when the new history has grown past the old one.
func TestAPromotionThatLosesEvents(t *testing.T) {
	t.Parallel()
	pg := harness.ReplicatedPostgres(t, harness.Replication{})
	pipelines := bothModes(t, pg.PG, harness.Kafka(t))
	relays := startAll(pipelines)
	for _, p := range pipelines {
		pg.AwaitSynced(p.name)
	}
	lost := commitOver(t, pg, 1, 20)
	for _, p := range pipelines {
		p.awaitExactly(lost...)
	}
	pg.Standby().Stop()
	lost = append(lost, commitOver(t, pg, 21, 40)...)
	for _, p := range pipelines {
		p.awaitExactly(lost...)
		p.awaitConfirmed(position(t, recordOf(t, p.published(), eventID(40))).Commit)
	}

	pg.Primary().Kill()
	pg.Standby().Start()
	before := slotsOf(t, pg.StandbyURL())
	pg.Promote()

	for i, p := range pipelines {
		p.ends(relays[i], 3, "timeline_diverged")
	}
	commitOver(t, pg, 41, 200)
	for _, p := range pipelines {
		p.refuses(3, "timeline_diverged", "run")
		p.awaitExactly(lost...)
		if at := p.confirmed(); at != before[p.name] {
			t.Errorf("the slot has moved from %s to %s", checkpoint.LSN(before[p.name]), checkpoint.LSN(at))
		}
	}
}

// commitOver commits events from to through, each by itself, at whichever server
// is the primary.
func commitOver(t *testing.T, pg *harness.ReplicatedPG, from, through int) []harness.Event {
	t.Helper()
	conn := pg.Connect(t)
	var events []harness.Event
	for n := from; n <= through; n++ {
		e := order(n, "a")
		if _, err := conn.Exec(t.Context(), insertEvent, e.ID, e.Key, e.Value); err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	return events
}

// slotsOf are the confirmed positions of a server's logical slots.
func slotsOf(t *testing.T, url string) map[string]uint64 {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	rows, err := conn.Query(t.Context(), "select slot_name, (confirmed_flush_lsn - '0/0'::pg_lsn)::bigint from pg_replication_slots where slot_type = 'logical'")
	if err != nil {
		t.Fatal(err)
	}
	slots := map[string]uint64{}
	var name string
	var at int64
	if _, err := pgx.ForEachRow(rows, []any{&name, &at}, func() error { slots[name] = uint64(at); return nil }); err != nil {
		t.Fatal(err)
	}
	return slots
}
