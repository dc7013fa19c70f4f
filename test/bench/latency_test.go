package bench

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/walpost/walpost/test/harness"
)

const (
	bare     = "bare sarama transaction"
	interval = time.Second / 100
	warmUp   = 100 // events at the beginning of a turn that are not judged
)

// writer makes events visible, one transaction each. Calls of a lane follow each
// other; lanes work side by side.
type writer interface {
	lanes() int
	// prepare does what precedes the moment from which time is taken.
	prepare(ctx context.Context, lane, n int) error
	commit(ctx context.Context, lane, n int) error
}

// BenchmarkLatency commits single rows at 100/s, whether the earlier ones have
// come out or not. It measures from the moment a COMMIT is due until a consumer
// has the event, beside transactions of one record that the client library makes
// by itself. Those can only follow each other, and what can't keep up would seem
// ever slower, so their time begins when they do.
func BenchmarkLatency(b *testing.B) {
	w, r := newWorld(b), newReport(b, "Latency")
	seen := &sightings{at: map[string]time.Time{}}
	direct := newProducer(b, w.broker, text(r.chance, 300))
	rows := newInserter(b, w.pg, direct.value)
	w.follow(seen.note, w.topic(), direct.topic)
	events := warmUp + short(300, 1000)
	next := 0
	turn := func(name string, by writer) {
		took := seen.since(b, openLoop(b, by, next, events), next)[warmUp:]
		next += events
		slices.Sort(took)
		r.add("commit to visible, p50", name, "ms", milliseconds(took[len(took)/2]))
		r.add("commit to visible, p99", name, "ms", milliseconds(took[len(took)*99/100]))
	}
	relayed := func(mode string) func() {
		return func() {
			relay := w.start(mode)
			turn(mode, rows)
			w.stop(relay)
		}
	}
	for b.Loop() {
		r.round(relayed(exactlyOnce), relayed(idempotent), func() { turn(bare, direct) })
	}
	r.compare("commit to visible, p50", exactlyOnce, bare, "<= 1.5")
	r.compare("commit to visible, p50", exactlyOnce, idempotent, "")
	r.print(w)
}

// openLoop commits events when they are due, and returns when that was. Who is late
// does not move the others; only with a single lane time begins when it gets there.
func openLoop(b *testing.B, by writer, first, events int) []time.Time {
	b.Helper()
	start := time.Now().Add(100 * time.Millisecond)
	began := make([]time.Time, events)
	group, ctx := errgroup.WithContext(b.Context())
	for lane := range by.lanes() {
		group.Go(func() error {
			for i := lane; i < events; i += by.lanes() {
				if err := by.prepare(ctx, lane, first+i); err != nil {
					return err
				}
				began[i] = start.Add(time.Duration(i) * interval)
				<-time.After(time.Until(began[i]))
				if by.lanes() == 1 {
					began[i] = time.Now()
				}
				if err := by.commit(ctx, lane, first+i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
	return began
}

// inserter commits rows of an outbox.
type inserter struct {
	conns   []*pgx.Conn
	payload string
}

// newInserter has enough connections that none is busy when its next event is due.
func newInserter(b *testing.B, pg *harness.PG, text string) *inserter {
	b.Helper()
	w := &inserter{payload: fmt.Sprintf(`{"text": %q}`, text)}
	for range 8 {
		w.conns = append(w.conns, pg.Connect(b))
	}
	return w
}

func (w *inserter) lanes() int { return len(w.conns) }

func (w *inserter) prepare(ctx context.Context, lane, n int) error {
	if _, err := w.conns[lane].Exec(ctx, "begin"); err != nil {
		return err
	}
	_, err := w.conns[lane].Exec(ctx, `insert into outbox values (gen_random_uuid(), 'order', $1, 'OrderPlaced', $2)`, strconv.Itoa(n), w.payload)
	return err
}

func (w *inserter) commit(ctx context.Context, lane, _ int) error {
	_, err := w.conns[lane].Exec(ctx, "commit")
	return err
}

// sightings are when a consumer had which event, by its key.
type sightings struct {
	mu sync.Mutex
	at map[string]time.Time
}

func (s *sightings) note(at time.Time, records []*kgo.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range records {
		s.at[string(r.Key)] = at
	}
}

// since waits until all of these events are seen, and returns how long they took.
func (s *sightings) since(b *testing.B, began []time.Time, first int) []time.Duration {
	b.Helper()
	took := make([]time.Duration, len(began))
	harness.Eventually(b, patience, "every event is visible", func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i := range took {
			at, ok := s.at[strconv.Itoa(first+i)]
			if !ok {
				return fmt.Errorf("event %d of %d is not", i+1, len(took))
			}
			took[i] = at.Sub(began[i])
		}
		return nil
	})
	return took
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
