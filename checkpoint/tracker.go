package checkpoint

import (
	"math/bits"
	"sync"
)

const (
	wordBits = 64
	minWords = 16 // room for 1024 events before the first growth
)

// Tracker follows the events of one session from the moment they are read
// until they are settled, and tells how far the settled prefix reaches.
//
// It holds one bit per event for the widest its window (Add minus settled
// prefix) has been, and one end per transaction in the window; in a steady
// flow it allocates nothing. Whoever adds events bounds the window.
//
// All methods are safe for concurrent use. They take one mutex each and are
// meant to be called once per batch. Make a Tracker with NewTracker.
type Tracker struct {
	mu      sync.Mutex
	settled bitRing // of the events in [prefix, added)
	added   uint64  // the next event's number
	prefix  uint64  // every event below it is settled
	ends    endQueue
	newest  uint64 // LSN of the newest end
	safe    uint64 // LSN of the newest end that the prefix has reached
}

// NewTracker returns a tracker of a session that has read nothing yet.
func NewTracker() *Tracker {
	return &Tracker{settled: newBitRing(minWords)}
}

// Add takes in n more events, in commit order, and returns the number of the
// first. Numbers are consecutive from 0. An n of 0 or less adds nothing.
func (t *Tracker) Add(n int) (first uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	first = t.added
	if n > 0 {
		t.added += uint64(n)
		t.settled.cover(t.prefix, t.added)
	}
	return first
}

// End says that lsn may be confirmed once every event added so far is settled.
// Without a new event since the last End it moves that end to lsn, so that any
// number of keepalives costs one entry. An lsn that is not above the last one
// is ignored: ends only move forward, and a keepalive may repeat an older
// position.
func (t *Tracker) End(lsn uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if lsn <= t.newest {
		return
	}
	t.newest = lsn
	if t.prefix == t.added {
		t.safe = lsn
		return
	}
	t.ends.put(end{events: t.added, lsn: lsn})
}

// Settle marks events as durably held by the sink, in any order. Settling one
// again is harmless. A number that was not added yet is ignored: should it be
// added later, that event waits for a settlement of its own, so a sink that
// miscounts can stall a session but can't make it confirm too much.
func (t *Tracker) Settle(seqs []uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, seq := range seqs {
		if seq >= t.prefix && seq < t.added {
			t.settled.set(seq)
		}
	}
	t.prefix = t.settled.advance(t.prefix, t.added)
	if lsn, reached := t.ends.reach(t.prefix); reached {
		t.safe = lsn
	}
}

// Safe returns the LSN that may be confirmed to Postgres (0: none yet), and
// the length of the settled prefix: every event with a number below seq is
// settled, so what it was lent may be reused. seq may be ahead of lsn, inside
// a transaction that has not ended or is not settled to its end. Neither ever
// goes back.
func (t *Tracker) Safe() (lsn, seq uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.safe, t.prefix
}

// InFlight returns how many events were added and are not in the settled
// prefix. Those settled behind an unsettled one count.
func (t *Tracker) InFlight() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return int(t.added - t.prefix) //nolint:gosec // a window that fits into memory fits into an int
}

// bitRing holds a bit for each number of a window that only moves forward. The
// bit of number n is bit n%64 of word n/64, modulo the ring's length.
//
// Invariant: bits at or above the window's upper end are 0, so advance stops
// there by itself and a word that comes into use again starts clean.
type bitRing struct {
	words []uint64
	mask  uint64 // len(words)-1; the length is a power of two
}

func newBitRing(words uint64) bitRing {
	return bitRing{words: make([]uint64, words), mask: words - 1}
}

func (r *bitRing) word(n uint64) *uint64 {
	return &r.words[n/wordBits&r.mask]
}

func (r *bitRing) set(n uint64) {
	*r.word(n) |= 1 << (n % wordBits)
}

// cover makes room for the window [low, high), high > low.
func (r *bitRing) cover(low, high uint64) {
	need := (high-1)/wordBits - low/wordBits + 1
	if need <= r.mask+1 {
		return
	}
	wider := newBitRing(1 << bits.Len64(need-1))
	first := low / wordBits * wordBits
	for n := first; n <= first+r.mask*wordBits; n += wordBits {
		*wider.word(n) = *r.word(n)
	}
	*r = wider
}

// advance returns the first number at or above low whose bit is 0, high if
// there is none below it, and clears each word that it leaves behind.
func (r *bitRing) advance(low, high uint64) uint64 {
	for low < high {
		word := r.word(low)
		left := wordBits - low%wordBits                                   // bits of this word from low on
		run := uint64(bits.TrailingZeros64(^(*word >> (low % wordBits)))) //nolint:gosec // 0 to 64
		if run < left {
			return low + run
		}
		*word = 0
		low += left
	}
	return low
}

// end is an LSN that may be confirmed when the prefix has reached events.
type end struct {
	events, lsn uint64
}

// endQueue is a queue in one slice: the entries before head are gone, and
// their room is used again before the slice grows.
type endQueue struct {
	entries []end
	head    int
}

// put appends e, or replaces the last entry if that waits for the same events.
func (q *endQueue) put(e end) {
	if last := len(q.entries) - 1; last >= q.head && q.entries[last].events == e.events {
		q.entries[last] = e
		return
	}
	q.compact()
	q.entries = append(q.entries, e)
}

// compact moves the entries to the front when the slice is full and at least
// half of it is gone: so each entry is moved at most once per entry that left.
func (q *endQueue) compact() {
	if len(q.entries) < cap(q.entries) || 2*q.head < len(q.entries) {
		return
	}
	n := copy(q.entries, q.entries[q.head:])
	q.entries, q.head = q.entries[:n], 0
}

// reach removes the entries that wait for no more than prefix events and
// returns the LSN of the last of them.
func (q *endQueue) reach(prefix uint64) (lsn uint64, reached bool) {
	for q.head < len(q.entries) && q.entries[q.head].events <= prefix {
		lsn, reached = q.entries[q.head].lsn, true
		q.head++
	}
	if q.head == len(q.entries) {
		q.entries, q.head = q.entries[:0], 0
	}
	return lsn, reached
}
