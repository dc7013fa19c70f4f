package integration

import (
	"fmt"
	mrand "math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/walpost/walpost/test/harness"
)

// This file is what the tests that break things share.

// stamped is an aggregate type in whose topic the broker stamps each record
// with the time it was appended.
const stamped = "stamped"

// drained is how long a backlog may take that a fault, or a test, has left.
const drained = 3 * time.Minute

// breakable is an initialised pipeline between servers of its own.
func breakable(t *testing.T, settings map[string]string) (*pipeline, *harness.DedicatedPG, *harness.DedicatedBroker) {
	t.Helper()
	pg, kafka := harness.DedicatedPostgres(t, harness.Newest, settings), harness.DedicatedKafka(t, harness.Newest)
	p := newPipelineTo(t, pg.PG, kafka.Broker)
	kafka.CreateTopic(t, p.topic(stamped), 3, "message.timestamp.type", "LogAppendTime")
	p.exec(outboxTable)
	p.initialise()
	return p, pg, kafka
}

// launch runs the relay and waits for nothing.
func (p *pipeline) launch() *harness.Relay {
	p.t.Helper()
	return harness.StartRelay(p.t, p.yaml())
}

// single commits one event by itself, on a connection of its own, and enters it
// into the ledger.
func (p *pipeline) single(ledger *harness.Ledger, key string) {
	p.t.Helper()
	id := harness.Value[string](p.t, p.pg, "select gen_random_uuid()::text")
	e := harness.Event{ID: id, Key: key, Value: `"` + id + `"`}
	p.pg.Exec(p.t, insertEvent, e.ID, e.Key, e.Value)
	ledger.Commit(e)
}

// settle waits until everything committed so far is confirmed. An event of its
// own makes the end: the slot is past what came before it when it is confirmed.
func (p *pipeline) settle(ledger *harness.Ledger) {
	p.t.Helper()
	before := lsn(p.t, p.pg, "pg_current_wal_insert_lsn()")
	p.single(ledger, "the-last")
	harness.Eventually(p.t, drained, "everything is confirmed", func() error {
		if at := p.confirmed(); at <= before {
			return fmt.Errorf("the slot stands at %X, not past %X", at, before)
		}
		return nil
	})
}

// verify compares what a consumer finds with the ledger.
func (p *pipeline) verify(ledger *harness.Ledger) harness.Report {
	p.t.Helper()
	report := ledger.Verify(p.published())
	p.t.Log(report)
	if err := report.Err(); err != nil {
		p.t.Error(err)
	}
	return report
}

// finish stops the load, waits for the last event and judges.
func (p *pipeline) finish(load *harness.Load) harness.Report {
	p.t.Helper()
	load.Stop()
	p.settle(load.Ledger)
	return p.verify(load.Ledger)
}

// lasting lets d pass: a fault, or a load, is to last so long. A relay that ends
// meanwhile fails the test.
func lasting(t *testing.T, relay *harness.Relay, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-relay.Done():
		t.Fatal("the relay ended by itself")
	}
}

// progresses waits until n more events are acknowledged.
func progresses(t *testing.T, relay *harness.Relay, n float64) {
	t.Helper()
	goal := scrape(t, relay).sum("walpost_events_published_total") + n
	harness.Eventually(t, time.Minute, fmt.Sprintf("%.0f more events are acknowledged", n), func() error {
		if got := scrape(t, relay).sum("walpost_events_published_total"); got < goal {
			return fmt.Errorf("%.0f of %.0f", got, goal)
		}
		return nil
	})
}

// envSeed repeats a run's random choices.
const envSeed = "WALPOST_TEST_SEED"

// random is seeded from the environment, or anew; either way it says with what.
func random(t *testing.T) *mrand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if given := os.Getenv(envSeed); given != "" {
		var err error
		if seed, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatalf("%s: %v", envSeed, err)
		}
	}
	t.Logf("%s=%d repeats this run's choices", envSeed, seed)
	return mrand.New(mrand.NewPCG(seed, 0))
}

// figure prints a measured value, also where the test's log is not shown.
func figure(t *testing.T, format string, args ...any) {
	t.Helper()
	fmt.Printf("%s: %s\n", t.Name(), fmt.Sprintf(format, args...))
}
