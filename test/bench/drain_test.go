package bench

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/test/harness"
)

const transactionRows = 1000

// BenchmarkDrain lets the relay work off what was written in transactions of 1000
// rows while it was away. It measures from the moment the relay streams until a
// consumer has the last row. (To begin with the first row that is visible would
// favour large Kafka transactions, with which many become visible at once.)
func BenchmarkDrain(b *testing.B) {
	w, r := newWorld(b), newReport(b, "Drain")
	rows := short(100_000, 300_000)
	value := text(r.chance, 280)
	var written, arrived, last atomic.Int64
	w.follow(func(at time.Time, records []*kgo.Record) {
		last.Store(at.UnixNano())
		arrived.Add(int64(len(records)))
	}, w.topic())
	drain := func(mode string) func() {
		return func() {
			w.backlog(rows, value)
			written.Add(int64(rows))
			relay := w.start(mode)
			start := time.Now()
			harness.Eventually(b, patience, "every row is visible", func() error {
				if left := written.Load() - arrived.Load(); left > 0 {
					return fmt.Errorf("%d are not", left)
				}
				return nil
			})
			r.add("drained", mode, "rows/s", float64(rows)/time.Unix(0, last.Load()).Sub(start).Seconds())
			w.stop(relay)
		}
	}
	for b.Loop() {
		r.round(drain(exactlyOnce), drain(idempotent))
	}
	r.compare("drained", exactlyOnce, idempotent, ">= 0.75")
	r.print(w)
}

// backlog writes rows, of about 300 bytes of JSON each, in place of those before.
func (w *world) backlog(rows int, value string) {
	w.b.Helper()
	w.pg.Exec(w.b, "truncate outbox")
	conn := w.pg.Connect(w.b)
	for range rows / transactionRows {
		if _, err := conn.Exec(w.b.Context(), `insert into outbox select gen_random_uuid(), 'order', (n % 100)::text, 'OrderPlaced',
			jsonb_build_object('n', n, 'text', $2::text) from generate_series(1, $1) n`, transactionRows, value); err != nil {
			w.b.Fatal(err)
		}
	}
}
