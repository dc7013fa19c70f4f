package integration

import (
	"fmt"
	"strings"
	"testing"

	"github.com/walpost/walpost/test/harness"
)

// TestSwitchingTheDelivery kills the relay under load again and again and starts
// it in the other mode each time.
func TestSwitchingTheDelivery(t *testing.T) {
	chance := random(t)
	p := prepared(t, harness.Postgres(t, harness.Newest))
	load := harness.StartLoad(t, p.pg, harness.LoadConfig{Rate: 200, Seed: chance.Uint64()})
	const switches = 6
	for n := range switches {
		p.set("kafka.delivery", []string{"idempotent", "exactly-once"}[n%2])
		relay := p.start()
		before := load.Committed()
		load.AwaitCommitted(before+300, patience)
		relay.Kill()
	}
	p.start()
	report := p.finish(load)
	figure(t, "%d switches under SIGKILL, %d events, %d came twice", switches, report.Committed, report.Duplicates)
	if report.Duplicates > 0 {
		t.Errorf("%d records too many", report.Duplicates)
	}
}

// manyRows inserts a transaction that is larger than the test allows for one.
func (p *pipeline) manyRows(key string, n int) {
	p.t.Helper()
	p.exec(`insert into outbox (id, aggregatetype, aggregateid, type, payload)
		select gen_random_uuid(), 'order', $1, 'OrderPlaced', '{}' from generate_series(1, $2)`, key, n)
}

// TestALargeTransactionIsSplit: the relay dies between its parts, and nothing is
// lost or comes twice.
func TestALargeTransactionIsSplit(t *testing.T) {
	const rows = 30_000
	p := prepared(t, harness.Postgres(t, harness.Newest))
	p.set("kafka.delivery", "exactly-once")
	p.set("kafka.max_transaction_events", 2_000)
	p.manyRows("a", rows)
	for range 3 {
		relay := p.start()
		seen := len(p.published())
		harness.Eventually(t, patience, "another part", func() error {
			if n := len(p.published()); n == seen && n < rows {
				return fmt.Errorf("%d records", n)
			}
			return nil
		})
		relay.Kill()
	}
	p.start()
	records := p.await(rows)
	indexes := map[uint32]bool{}
	for i, r := range records {
		pos := position(t, r)
		if indexes[pos.Index] {
			t.Fatalf("row %d came twice", pos.Index)
		}
		if indexes[pos.Index] = true; int(pos.Index) != i {
			t.Fatalf("row %d is record %d", pos.Index, i)
		}
	}
	if len(records) != rows {
		t.Errorf("%d records", len(records))
	}
}

// TestALargeTransactionStops: nothing of it is visible, and what came before is.
func TestALargeTransactionStops(t *testing.T) {
	p := prepared(t, harness.Postgres(t, harness.Newest))
	p.set("kafka.delivery", "exactly-once")
	p.set("kafka.max_transaction_events", 2_000)
	p.set("kafka.oversized", "stop")
	p.commit(order(1, "a"))
	p.manyRows("a", 5_000)
	log := p.ends(harness.StartRelay(t, p.yaml()), 1, "poison_event")
	if !strings.Contains(log, "has more than 2000 events") {
		t.Errorf("it does not say why:\n%s", log)
	}
	p.set("kafka.oversized", "split")
	p.start()
	p.await(5_001)
}

// TestPoisonInATransaction: with exactly-once, events that precede the transaction
// of one that can't be published are visible, and nothing of that transaction.
func TestPoisonInATransaction(t *testing.T) {
	p := prepared(t, harness.Postgres(t, harness.Newest))
	p.set("kafka.delivery", "exactly-once")
	p.set("kafka.max_message_bytes", "2KiB")
	large := order(3, "b")
	large.Value = fmt.Sprintf(`{"n": %q}`, strings.Repeat("x", 4096))
	p.commit(order(1, "a"))
	p.commit(order(2, "b"), large, order(4, "a"))
	p.commit(order(5, "a"))
	p.ends(harness.StartRelay(t, p.yaml()), 1, "poison_event")
	p.awaitExactly(order(1, "a"))
	p.set("kafka.max_message_bytes", "1MiB")
	p.start()
	p.awaitExactly(order(1, "a"), order(2, "b"), large, order(4, "a"), order(5, "a"))
}
