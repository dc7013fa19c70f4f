package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/replication"
	"github.com/walpost/walpost/sink"
)

// flight is what has been read and is not yet in the settled prefix: it bounds
// it, keeps its memory until nobody needs it, and knows which position the
// settled prefix amounts to.
//
// Loads enter at the back in order (feed), are settled in any order (the sink's
// goroutine), and leave at the front (feed and confirm).
type flight struct {
	tracker   *checkpoint.Tracker
	observer  Observer
	maxEvents int
	maxBytes  int
	now       func() time.Time

	deferred bool // what is settled is observed when it is revealed

	room chan struct{} // something was settled; capacity 1

	mu       sync.Mutex
	loads    []*load // in order
	free     []*load
	ends     []end  // of transactions with events, in order, not yet passed
	next     uint64 // sequence number of the next message
	commit   uint64 // commit LSN of the last message
	events   int
	bytes    int
	progress time.Time // last settlement
	busy     time.Time // when the flight was last empty and ceased to be
	passed   point     // the last of the ends that was passed
	tail     point     // the last message that was recycled
	hidden   []run     // settled, not observed yet
}

// end is where a transaction with events ends: lsn may be confirmed when every
// message before after is settled.
type end struct {
	lsn   uint64
	after uint64
	xid   uint32
}

// point is a position with the last event before it.
type point struct {
	lsn   uint64
	after uint64 // every message before it, and no other, belongs to the transactions up to lsn
	pos   outbox.Position
	xid   uint32
	time  time.Time
	id    []byte
}

// set makes m the last event. Its id is copied: m's lives in a load.
func (p *point) set(m *outbox.Message) {
	p.pos, p.time, p.id = m.Pos, m.Time, append(p.id[:0], m.ID...)
}

func newFlight(cfg Config) *flight {
	return &flight{
		tracker: checkpoint.NewTracker(), observer: cfg.Observer, deferred: cfg.Sink.Atomic(),
		maxEvents: cfg.MaxInFlightEvents, maxBytes: cfg.MaxInFlightBytes,
		now: time.Now, room: make(chan struct{}, 1),
	}
}

// admit waits until a batch of so many events and bytes fits, and returns the
// load to put it in. A batch larger than the bounds is admitted alone.
func (f *flight) admit(ctx context.Context, events, bytes int) (*load, error) {
	for {
		if l := f.tryAdmit(events, bytes); l != nil {
			return l, nil
		}
		select {
		case <-f.room:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (f *flight) tryAdmit(events, bytes int) *load {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reap()
	if f.events > 0 && (f.events+events > f.maxEvents || f.bytes+bytes > f.maxBytes) {
		return nil
	}
	f.events += events
	f.bytes += bytes
	if n := len(f.free) - 1; n >= 0 {
		l := f.free[n]
		f.free = f.free[:n]
		return l
	}
	return &load{}
}

// launch makes an admitted and filled load part of the flight, so that its
// messages may be sent. It numbers them, and lands the ends of the segments
// whose rows are all among them: after a row that could not be mapped, nothing.
func (f *flight) launch(l *load, segments []replication.Segment) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.loads) == 0 {
		f.busy = f.now()
	}
	if len(l.messages) > 0 {
		f.loads = append(f.loads, l)
		l.sending = true
	}
	rest := l.messages
	for _, seg := range segments {
		n := min(len(seg.Rows), len(rest))
		f.number(rest[:n])
		rest = rest[n:]
		if n < len(seg.Rows) {
			return
		}
		f.land(seg)
	}
}

// taken says that the session has been handed a launched load's messages and
// looks at them no more. Settled or not, a load is not recycled before.
func (f *flight) taken(l *load) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l.sending = false
}

func (f *flight) number(messages []outbox.Message) {
	if len(messages) == 0 {
		return
	}
	f.next = f.tracker.Add(len(messages))
	for i := range messages {
		messages[i].Seq = f.next
		f.next++
	}
	f.commit = messages[0].Pos.Commit
}

// landAll passes over segments without rows, in their place among what was launched.
func (f *flight) landAll(segments []replication.Segment) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, seg := range segments {
		f.land(seg)
	}
}

// land says that what was launched so far ends with the segment. Only a
// transaction that had events makes an end to remember an event by.
func (f *flight) land(seg replication.Segment) {
	if seg.End == 0 {
		return
	}
	f.tracker.End(seg.End)
	if seg.Commit != 0 && seg.Commit == f.commit {
		f.ends = append(f.ends, end{lsn: seg.End, after: f.next, xid: seg.XID})
	}
}

// settled waits until every message before seq is settled, or until given up
// on: ctx ends, or gone is closed.
func (f *flight) settled(ctx context.Context, seq uint64, gone <-chan struct{}) error {
	for {
		if _, prefix := f.tracker.Safe(); prefix >= seq {
			return nil
		}
		select {
		case <-f.room:
		case <-gone:
			return errGone
		case <-ctx.Done():
			return fmt.Errorf("wait for acknowledgements: %w", context.Cause(ctx))
		}
	}
}

// errGone says that what is in flight will not be settled any more.
var errGone = errors.New("the sink's session has ended")

// settle is the sink's callback.
func (f *flight) settle(seqs []uint64, outcome sink.Outcome) {
	f.mu.Lock()
	f.progress = f.now()
	f.observe(seqs, outcome == sink.Duplicate)
	f.tracker.Settle(seqs)
	f.mu.Unlock()
	select {
	case f.room <- struct{}{}:
	default:
	}
}

// safe returns what may be remembered now. The point's lsn is 0 while nothing
// may. It can be well behind the settled prefix, which may end inside a
// transaction.
func (f *flight) safe() point {
	f.mu.Lock()
	defer f.mu.Unlock()
	lsn, _ := f.reap()
	p := f.passed
	p.lsn, p.id = lsn, bytes.Clone(p.id)
	return p
}

// reap passes the ends and recycles the loads that are settled.
func (f *flight) reap() (lsn, seq uint64) {
	lsn, seq = f.tracker.Safe()
	f.pass(lsn, seq)
	gone := 0
	for _, l := range f.loads {
		if l.after() > seq || l.sending {
			break
		}
		f.tail.set(&l.messages[len(l.messages)-1])
		f.recycle(l)
		gone++
	}
	f.loads = dropFront(f.loads, gone)
	return lsn, seq
}

// pass remembers the last transaction end up to lsn, and its last message. A
// load may be gone before the end of its last transaction has come; its last
// message is the tail then.
func (f *flight) pass(lsn, seq uint64) {
	n := 0
	for n < len(f.ends) && f.ends[n].lsn <= lsn && f.ends[n].after <= seq {
		n++
	}
	if n == 0 {
		return
	}
	e := f.ends[n-1]
	if l := f.holding(e.after-1, nil); l != nil {
		f.passed.set(&l.messages[e.after-1-l.messages[0].Seq])
	} else {
		f.passed.pos, f.passed.time, f.passed.id = f.tail.pos, f.tail.time, append(f.passed.id[:0], f.tail.id...)
	}
	f.passed.xid, f.passed.after = e.xid, e.after
	f.ends = dropFront(f.ends, n)
}

// dropFront moves the rest of a queue to the front of its array, so that the
// array is reused instead of crawling through memory.
func dropFront[T any](queue []T, n int) []T {
	if n == 0 {
		return queue
	}
	rest := copy(queue, queue[n:])
	clear(queue[rest:])
	return queue[:rest]
}

// level is a snapshot of the flight.
type level struct {
	events, bytes int
	flowing       bool      // events were settled, or none wait
	oldest        time.Time // commit time of the first message that is not settled
	progress      time.Time
	waiting       time.Time // since when something has waited and nothing was settled
}

func (f *flight) level() level {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, seq := f.reap()
	v := level{
		events: f.events, bytes: f.bytes, flowing: f.events == 0 || seq > 0,
		progress: f.progress, waiting: f.progress,
	}
	if f.busy.After(f.progress) {
		v.waiting = f.busy
	}
	if len(f.hidden) > 0 {
		v.oldest = f.hidden[0].time
	} else if l := f.holding(seq, nil); l != nil {
		v.oldest = l.messages[seq-l.messages[0].Seq].Time
	}
	return v
}
