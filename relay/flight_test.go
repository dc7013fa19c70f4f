package relay

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/replication"
	"github.com/walpost/walpost/sink"
)

func newTestFlight(maxEvents, maxBytes int) (*flight, *fakeObserver) {
	o := newFakeObserver()
	return newFlight(Config{Sink: &fakeKafka{}, Observer: o, MaxInFlightEvents: maxEvents, MaxInFlightBytes: maxBytes}), o
}

// fly does what Pipeline.deliver does, with messages made by hand: those of
// the first rows, up to good.
func fly(f *flight, l *load, b *replication.Batch, good int) {
	l.batch = b
	for _, seg := range b.Segments {
		for _, row := range seg.Rows {
			if len(l.messages) == good {
				break
			}
			l.messages = append(l.messages, outbox.Message{
				Pos:  outbox.Position{Generation: 1, Commit: seg.Commit, Index: row.Index},
				Time: seg.Time, ID: row.Values[0], Topic: "event." + string(row.Values[0][:1]),
			})
		}
	}
	f.launch(l, b.Segments)
	f.taken(l)
}

// admitAndFly is for batches that fit.
func admitAndFly(t testing.TB, f *flight, b *replication.Batch) {
	t.Helper()
	l := f.tryAdmit(b.Rows, b.Bytes)
	if l == nil {
		t.Fatalf("a batch of %d rows was not admitted", b.Rows)
	}
	fly(f, l, b, b.Rows)
}

func TestFlightSettlementsOfUnknownOrRecycledMessagesAreHarmless(t *testing.T) {
	f, observer := newTestFlight(10, 1000)
	admitAndFly(t, f, batch(transaction(10, "a-1", "a-2")))
	f.settle([]uint64{0, 1}, sink.Delivered)
	if p := f.safe(); p.lsn != 15 {
		t.Fatalf("safe at %d", p.lsn)
	}
	f.settle([]uint64{0, 1, 2, 99}, sink.Delivered)
	if got := observer.settled["event.a"]; got != 2 {
		t.Errorf("observed %d events, 2 were settled", got)
	}
	admitAndFly(t, f, batch(transaction(20, "a-3")))
	if p := f.safe(); p.lsn != 15 {
		t.Errorf("safe at %d: an event that was settled before it was there counts", p.lsn)
	}
}

func TestFlightReportsDuplicates(t *testing.T) {
	f, observer := newTestFlight(10, 1000)
	admitAndFly(t, f, batch(transaction(10, "a-1", "b-2")))
	f.settle([]uint64{0}, sink.Duplicate)
	f.settle([]uint64{1}, sink.Delivered)
	if observer.duplicate != 1 || observer.settled["event.a"] != 1 || observer.settled["event.b"] != 1 {
		t.Errorf("observed %+v, %d duplicates", observer.settled, observer.duplicate)
	}
}

func TestFlightAdmitsWithinBothBounds(t *testing.T) {
	for name, second := range map[string]*replication.Batch{
		"events": {Rows: 2, Bytes: 1},
		"bytes":  {Rows: 1, Bytes: 600},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, _ := newTestFlight(3, 1000)
				first := batch(transaction(10, "a-1", "a-2"))
				first.Bytes = 500
				admitAndFly(t, f, first)
				admitted := make(chan error, 1)
				go func() {
					_, err := f.admit(t.Context(), second.Rows, second.Bytes)
					admitted <- err
				}()
				f.settle([]uint64{0}, sink.Delivered)
				synctest.Wait()
				select {
				case err := <-admitted:
					t.Fatalf("admitted beyond the bounds: %v", err)
				default:
				}
				f.settle([]uint64{1}, sink.Delivered)
				if err := <-admitted; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestFlightAdmitsAnOversizedBatchAlone(t *testing.T) {
	f, _ := newTestFlight(3, 1000)
	admitAndFly(t, f, batch(transaction(10, "a-1", "a-2", "a-3", "a-4")))
	if f.tryAdmit(1, 1) != nil {
		t.Error("another batch was admitted beside it")
	}
	f.settle([]uint64{0, 1, 2, 3}, sink.Delivered)
	if f.tryAdmit(1, 5000) == nil {
		t.Error("a batch of too many bytes was not admitted alone")
	}
}

func TestFlightAdmissionEndsWithItsContext(t *testing.T) {
	f, _ := newTestFlight(1, 1000)
	admitAndFly(t, f, batch(transaction(10, "a-1")))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.admit(ctx, 1, 1); err == nil {
		t.Error("admitted beyond the bounds")
	}
}

func TestFlightLandsNothingPastAnUnmappableRow(t *testing.T) {
	for name, c := range map[string]struct {
		segments []replication.Segment
		good     int
		want     uint64
	}{
		"in the middle of a transaction":    {[]replication.Segment{transaction(10, "a-1"), transaction(20, "a-2", poisonRow), transaction(30, "a-3")}, 2, 15},
		"first of a transaction":            {[]replication.Segment{transaction(10, "a-1"), transaction(20, poisonRow), keepalive(40)}, 1, 15},
		"first of all":                      {[]replication.Segment{transaction(20, poisonRow), keepalive(40)}, 0, 0},
		"first, after an earlier one's end": {[]replication.Segment{part(10, 15, nil), transaction(20, poisonRow)}, 0, 15},
	} {
		t.Run(name, func(t *testing.T) {
			f, _ := newTestFlight(10, 1000)
			b := batch(c.segments...)
			fly(f, f.tryAdmit(b.Rows, b.Bytes), b, c.good)
			for seq := range uint64(c.good) {
				f.settle([]uint64{seq}, sink.Delivered)
			}
			if p := f.safe(); p.lsn != c.want {
				t.Errorf("safe at %d, want %d", p.lsn, c.want)
			}
		})
	}
}

// A prefix that ends inside a transaction is no position, and a checkpoint must
// not claim its events: they come again after a crash.
func TestFlightIsNotSafeInsideATransaction(t *testing.T) {
	f, _ := newTestFlight(10, 1000)
	admitAndFly(t, f, batch(transaction(10, "a-1"), part(20, 0, rows(0, "a-2", "a-3"))))
	f.settle([]uint64{0, 1, 2}, sink.Delivered)
	if p := f.safe(); p.lsn != 15 || p.after != 1 || string(p.id) != "a-1" {
		t.Errorf("safe at %d through %d with last event %q", p.lsn, p.after, p.id)
	}
	f.landAll([]replication.Segment{part(20, 25, nil)})
	if p := f.safe(); p.lsn != 25 || p.after != 3 || string(p.id) != "a-3" {
		t.Errorf("after its end safe at %d through %d with last event %q", p.lsn, p.after, p.id)
	}
}

// Positions from the server only move forward. Should one not, then nothing
// that is unsettled may be named the last settled event for it.
func TestFlightIsSafeFromPositionsThatGoBack(t *testing.T) {
	f, _ := newTestFlight(10, 1000)
	admitAndFly(t, f, batch(transaction(10, "a-1")))
	f.settle([]uint64{0}, sink.Delivered)
	f.landAll([]replication.Segment{keepalive(100)})
	admitAndFly(t, f, batch(transaction(50, "a-2")))
	if p := f.safe(); p.after != 1 || string(p.id) != "a-1" {
		t.Errorf("safe at %d through %d with last event %q", p.lsn, p.after, p.id)
	}
}

// The slice that Send was given is Send's until it returns, even when all of it
// is settled before.
func TestFlightDoesNotRecycleWhatIsBeingSent(t *testing.T) {
	f, _ := newTestFlight(10, 1000)
	b := batch(transaction(10, "a-1", "a-2"))
	l := f.tryAdmit(b.Rows, b.Bytes)
	l.batch = b
	l.messages = append(l.messages, outbox.Message{ID: []byte("a-1")}, outbox.Message{ID: []byte("a-2")})
	f.launch(l, b.Segments)
	f.settle([]uint64{0, 1}, sink.Delivered)
	if p := f.safe(); p.lsn != 15 {
		t.Errorf("safe at %d", p.lsn)
	}
	if v := f.level(); v.events != 2 || !v.oldest.IsZero() {
		t.Errorf("while it is being sent: %+v", v)
	}
	if string(l.messages[1].ID) != "a-2" {
		t.Error("the messages are gone")
	}
	f.taken(l)
	if v := f.level(); v.events != 0 {
		t.Errorf("after it was sent: %+v", v)
	}
}

func TestFlightSettledGivesUp(t *testing.T) {
	f, _ := newTestFlight(10, 1000)
	admitAndFly(t, f, batch(transaction(10, "a-1")))
	gone := make(chan struct{})
	close(gone)
	if err := f.settled(t.Context(), 1, gone); err == nil {
		t.Error("settled without a settlement")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.settled(ctx, 1, nil); err == nil {
		t.Error("settled without a settlement")
	}
	f.settle([]uint64{0}, sink.Delivered)
	if err := f.settled(ctx, 1, gone); err != nil {
		t.Errorf("all is settled: %v", err)
	}
}

// Within the steady state a batch on its way through costs no memory, and so
// none an event.
func TestFlightAllocatesNothingInTheSteadyState(t *testing.T) {
	f := newFlight(Config{Sink: &fakeKafka{}, Observer: silent{}, MaxInFlightEvents: 1000, MaxInFlightBytes: 1 << 20})
	b := batch(transaction(10, "a-1", "a-2"), transaction(20, "a-3"), part(30, 35, rows(0, "b-4", "b-5")))
	seqs := make([]uint64, b.Rows)
	next, lsn := uint64(0), uint64(0)
	cycle := func() {
		lsn += 40
		for i := range b.Segments {
			b.Segments[i].Commit = lsn + uint64(i)*10
			b.Segments[i].End = b.Segments[i].Commit + 5
		}
		l := f.tryAdmit(b.Rows, b.Bytes)
		l.batch = b
		for _, seg := range b.Segments {
			for _, row := range seg.Rows {
				l.messages = append(l.messages, outbox.Message{Pos: outbox.Position{Commit: seg.Commit, Index: row.Index}, ID: row.Values[0]})
			}
		}
		f.launch(l, b.Segments)
		f.taken(l)
		for i := range seqs {
			seqs[i] = next
			next++
		}
		f.settle(seqs, sink.Delivered)
		f.level() // reaps
	}
	cycle()
	if n := testing.AllocsPerRun(1000, cycle); n != 0 {
		t.Errorf("%v allocations a batch", n)
	}
	if p := f.safe(); p.after != next {
		t.Fatalf("safe through %d of %d: the cycle does not do what it should", p.after, next)
	}
}

// silent is an Observer that allocates nothing.
type silent struct{}

func (silent) Read(int)                                 {}
func (silent) Settled(string, int, time.Duration, bool) {}
func (silent) Skipped(int)                              {}
func (silent) Restarted(string)                         {}
