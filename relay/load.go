package relay

import (
	"sort"
	"time"

	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/outbox/mapping"
	"github.com/walpost/walpost/replication"
)

// load is a batch, the messages made from it, and what their bytes live in.
type load struct {
	batch    *replication.Batch
	arena    mapping.Arena
	messages []outbox.Message
	sending  bool // the session is still being handed the messages
}

// run is a number of messages of one topic and one transaction.
type run struct {
	topic     string
	time      time.Time // commit time
	n         int
	duplicate bool
}

// observe reports runs of one topic and one transaction at once. It must come
// before the tracker is told: until then the messages are certainly there.
func (f *flight) observe(seqs []uint64, duplicate bool) {
	var (
		l       *load
		current run
		commit  uint64
	)
	for _, seq := range seqs {
		if l = f.holding(seq, l); l == nil {
			continue
		}
		m := &l.messages[seq-l.messages[0].Seq]
		if current.n > 0 && current.topic == m.Topic && commit == m.Pos.Commit {
			current.n++
			continue
		}
		f.report(current)
		current, commit = run{m.Topic, m.Time, 1, duplicate}, m.Pos.Commit
	}
	f.report(current)
}

func (f *flight) report(r run) {
	switch {
	case r.n == 0:
	case f.deferred:
		f.hidden = append(f.hidden, r)
	default:
		f.observer.Settled(r.topic, r.n, max(0, f.progress.Sub(r.time)), r.duplicate)
	}
}

// reveal observes what was settled until now: an atomic sink shows it now.
func (f *flight) reveal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.progress = f.now()
	for _, r := range f.hidden {
		f.observer.Settled(r.topic, r.n, max(0, f.progress.Sub(r.time)), r.duplicate)
	}
	f.hidden = f.hidden[:0]
}

// holding finds the load that a message is in, trying guess first.
func (f *flight) holding(seq uint64, guess *load) *load {
	if guess.holds(seq) {
		return guess
	}
	i := sort.Search(len(f.loads), func(i int) bool { return f.loads[i].after() > seq })
	if i < len(f.loads) && f.loads[i].holds(seq) {
		return f.loads[i]
	}
	return nil
}

func (l *load) holds(seq uint64) bool {
	return l != nil && len(l.messages) > 0 && l.messages[0].Seq <= seq && seq < l.after()
}

func (l *load) after() uint64 {
	return l.messages[0].Seq + uint64(len(l.messages))
}

func (f *flight) recycle(l *load) {
	f.events -= len(l.messages)
	f.bytes -= l.batch.Bytes
	l.batch.Recycle()
	l.batch = nil
	l.arena.Reset()
	clear(l.messages)
	l.messages = l.messages[:0]
	if len(f.free) < keptLoads {
		f.free = append(f.free, l)
	}
}

// keptLoads bounds the memory kept for reuse, not what may be in flight.
const keptLoads = 32
