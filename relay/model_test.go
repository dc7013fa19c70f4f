package relay

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/replication"
	"github.com/walpost/walpost/sink"
)

// model knows about a flight what a list of everything can tell.
type model struct {
	events  []modelEvent
	ends    []modelEnd
	settled map[uint64]bool
	batches [][2]uint64 // from and after, by number of event
}

type modelEvent struct {
	pos   outbox.Position
	xid   uint32
	time  time.Time
	id    string
	topic string
}

type modelEnd struct{ lsn, after uint64 }

func (m *model) add(b *replication.Batch) {
	from := uint64(len(m.events))
	for _, seg := range b.Segments {
		for _, row := range seg.Rows {
			id := string(row.Values[0])
			m.events = append(m.events, modelEvent{positionOf(seg, row), seg.XID, seg.Time, id, "event." + id[:1]})
		}
		if seg.End != 0 {
			m.ends = append(m.ends, modelEnd{seg.End, uint64(len(m.events))})
		}
	}
	if after := uint64(len(m.events)); after > from {
		m.batches = append(m.batches, [2]uint64{from, after})
	}
}

func (m *model) prefix() (n uint64) {
	for m.settled[n] {
		n++
	}
	return n
}

// safe walks through everything.
func (m *model) safe() (lsn, after uint64) {
	for _, e := range m.ends {
		if e.after <= m.prefix() {
			lsn, after = e.lsn, e.after
		}
	}
	return lsn, after
}

func (m *model) inFlight() (n int) {
	for _, b := range m.batches {
		if b[1] > m.prefix() {
			n += int(b[1] - b[0])
		}
	}
	return n
}

func (m *model) unsettled() (list []uint64) {
	for n := range uint64(len(m.events)) {
		if !m.settled[n] {
			list = append(list, n)
		}
	}
	return list
}

// history makes batches the way a stream does: transactions of any size that
// continue over batches, empty ones and keepalives between them.
type history struct {
	lsn    uint64
	commit uint64 // of the open transaction; 0: none
	index  int
	events int
}

func (h *history) next(t *rapid.T) *replication.Batch {
	var segments []replication.Segment
	for range rapid.IntRange(1, 4).Draw(t, "segments") {
		segments = append(segments, h.segment(t))
	}
	return batch(segments...)
}

func (h *history) segment(t *rapid.T) replication.Segment {
	h.lsn += 10
	if h.commit == 0 && rapid.IntRange(0, 3).Draw(t, "kind") == 0 {
		return keepalive(h.lsn)
	}
	if h.commit == 0 {
		h.commit, h.index = h.lsn, 0
	}
	var ids []string
	for range rapid.IntRange(0, 3).Draw(t, "rows") {
		ids = append(ids, fmt.Sprintf("%c-%d", 'a'+h.events%3, h.events))
		h.events++
	}
	seg := part(h.commit, 0, rows(h.index, ids...))
	h.index += len(ids)
	if len(ids) == 0 || rapid.Bool().Draw(t, "ends") {
		h.lsn += 10
		seg.End, h.commit = h.lsn, 0
	}
	return seg
}

func TestFlightAgainstANaiveModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const maxEvents = 12
		f, observer := newTestFlight(maxEvents, 1<<30)
		m, h := model{settled: map[uint64]bool{}}, history{}
		observed := map[string]int{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "read") {
				step(t, f, &m, h.next(t), maxEvents)
			} else {
				settleSome(t, f, &m, observed)
			}
			compare(t, f, &m)
		}
		settleAll(f, &m, observed)
		compare(t, f, &m)
		if !maps.Equal(observer.settled, observed) {
			t.Fatalf("observed %v, settled were %v", observer.settled, observed)
		}
	})
}

func step(t *rapid.T, f *flight, m *model, b *replication.Batch, maxEvents int) {
	if b.Rows == 0 {
		f.landAll(b.Segments)
		m.add(b)
		return
	}
	l := f.tryAdmit(b.Rows, b.Bytes)
	fits := m.inFlight() == 0 || m.inFlight()+b.Rows <= maxEvents
	if admitted := l != nil; admitted != fits {
		t.Fatalf("%d events are in flight, %d more: admitted is %v", m.inFlight(), b.Rows, admitted)
	}
	if l == nil {
		// Whatever is not admitted now is later. That it comes at all is what
		// the model cares about.
		settleAll(f, m, nil)
		l = f.tryAdmit(b.Rows, b.Bytes)
	}
	fly(f, l, b, b.Rows)
	m.add(b)
}

func settleSome(t *rapid.T, f *flight, m *model, observed map[string]int) {
	open := m.unsettled()
	if len(open) == 0 {
		return
	}
	picked := slices.DeleteFunc(open, func(uint64) bool { return rapid.IntRange(0, 2).Draw(t, "acked") == 0 })
	settle(f, m, picked, observed)
}

func settleAll(f *flight, m *model, observed map[string]int) { settle(f, m, m.unsettled(), observed) }

func settle(f *flight, m *model, seqs []uint64, observed map[string]int) {
	for _, seq := range seqs {
		m.settled[seq] = true
		if observed != nil {
			observed[m.events[seq].topic]++
		}
	}
	if observed == nil {
		f.observer.(*fakeObserver).hush(func() { f.settle(seqs, sink.Delivered) })
		return
	}
	f.settle(seqs, sink.Delivered)
}

// hush does something that is not to be counted.
func (o *fakeObserver) hush(do func()) {
	before := maps.Clone(o.settled)
	do()
	o.settled = before
}

func compare(t *rapid.T, f *flight, m *model) {
	got := f.safe()
	lsn, after := m.safe()
	if got.lsn != lsn || got.after != after {
		t.Fatalf("safe at %d through %d, want %d through %d", got.lsn, got.after, lsn, after)
	}
	if after > 0 {
		want := m.events[after-1]
		if got.pos != want.pos || got.xid != want.xid || string(got.id) != want.id || !got.time.Equal(want.time) {
			t.Fatalf("safe at %d with last event %s %q of %d, want %s %q of %d", lsn, got.pos, got.id, got.xid, want.pos, want.id, want.xid)
		}
	} else if len(got.id) > 0 {
		t.Fatalf("safe at %d with last event %q, and there is none", lsn, got.id)
	}
	v := f.level()
	if v.events != m.inFlight() {
		t.Fatalf("%d events in flight, want %d", v.events, m.inFlight())
	}
	if open := m.unsettled(); len(open) == 0 {
		if !v.oldest.IsZero() || len(f.loads) != 0 || v.bytes != 0 || !v.flowing {
			t.Fatalf("nothing is in flight, and %+v, %d loads", v, len(f.loads))
		}
	} else if want := m.events[open[0]].time; !v.oldest.Equal(want) {
		t.Fatalf("the oldest unsettled event is of %s, want %s", v.oldest, want)
	}
	if len(f.loads) > m.inFlight() || len(f.ends) > m.inFlight() || len(f.free) > keptLoads {
		t.Fatalf("%d loads, %d ends, %d free for %d events in flight", len(f.loads), len(f.ends), len(f.free), m.inFlight())
	}
}
