package main

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"
)

// event is what the application knows of a row it has put into the outbox.
type event struct {
	id, kind, key string
}

// sighting is one record as the consumer has met it.
type sighting struct {
	id, topic string
	partition int32
	at        time.Time
}

// delivery is a committed event at the moment when both its commit and its
// first arrival are known.
type delivery struct {
	event
	topic     string
	partition int32
	at        time.Time     // of the arrival
	latency   time.Duration // from the commit; 0 if the record overtook the answer to COMMIT
}

// ledger compares what the application committed with what the consumer met.
// All times are of this process, so its monotonic clock measures between them.
type ledger struct {
	seen func(delivery) // told of each delivery once, with mu held

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each change
	entries map[string]*entry
	keys    map[string][]*entry // committed, in commit order
	records int                 // arrived so far, of any kind
	foreign int                 // of them, those nobody knows

	transactions, rollbacks int
	underWay                int // committed and not arrived

	killed   time.Time // zero: not yet
	restored time.Time // first arrival of an event committed after the kill
}

// entry is one event's line in the ledger. Its arrivals are numbered through
// all records, because a consumer meets the records of a key in one order.
type entry struct {
	event
	outcome     outcome
	committed   time.Time
	first, last int // number of the first and last arrival; 0: none
	arrivals    int
	firstSeen   sighting
}

type outcome uint8

const (
	undecided outcome = iota
	committed
	rolledBack
)

func newLedger(seen func(delivery)) *ledger {
	return &ledger{
		seen:    seen,
		changed: make(chan struct{}),
		entries: map[string]*entry{},
		keys:    map[string][]*entry{},
	}
}

// announce enters events before their transaction ends: the record of one may
// arrive before the answer to its COMMIT does.
func (l *ledger) announce(events []event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range events {
		l.entries[e.id] = &entry{event: e}
	}
}

// commit notes that a transaction with these events has committed. Commits of
// one key must be noted in their order.
func (l *ledger) commit(at time.Time, events []event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.wake()
	l.transactions++
	for _, e := range events {
		line := l.entries[e.id]
		line.outcome, line.committed = committed, at
		l.keys[e.key] = append(l.keys[e.key], line)
		if line.arrivals > 0 {
			l.delivered(line)
		} else {
			l.underWay++
		}
	}
}

// rollBack notes that a transaction with these events was rolled back.
func (l *ledger) rollBack(events []event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rollbacks++
	for _, e := range events {
		l.entries[e.id].outcome = rolledBack
	}
}

// arrive notes a record.
func (l *ledger) arrive(s sighting) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.wake()
	l.records++
	line, known := l.entries[s.id]
	if !known {
		l.foreign++
		return
	}
	line.arrivals++
	line.last = l.records
	if line.arrivals > 1 {
		return
	}
	line.first, line.firstSeen = l.records, s
	if line.outcome == committed {
		l.underWay--
		l.delivered(line)
	}
}

// delivered is called once per event, with both times known.
func (l *ledger) delivered(line *entry) {
	if !l.killed.IsZero() && l.restored.IsZero() && line.committed.After(l.killed) {
		l.restored = line.firstSeen.at
	}
	l.seen(delivery{line.event, line.firstSeen.topic, line.firstSeen.partition, line.firstSeen.at, line.latency()})
}

func (e *entry) latency() time.Duration {
	return max(0, e.firstSeen.at.Sub(e.committed))
}

// metTheKill says whether the event was on its way at some moment between the
// kill and the first event after it.
func (l *ledger) metTheKill(line *entry) bool {
	return !l.killed.IsZero() && line.firstSeen.at.After(l.killed) &&
		(l.restored.IsZero() || !line.committed.After(l.restored))
}

// kill notes that the relay is dead from at on, and returns how many events
// are under way.
func (l *ledger) kill(at time.Time) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.killed = at
	return l.underWay
}

// outage is the time from the kill to the first event that was committed and
// arrived after it.
func (l *ledger) outage() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.restored.Sub(l.killed)
}

func (l *ledger) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// await waits until the ledger is in the state that reached looks for, with mu
// held. It reports false if ctx ended first.
func (l *ledger) await(ctx context.Context, reached func() bool) bool {
	for {
		l.mu.Lock()
		done, changed := reached(), l.changed
		l.mu.Unlock()
		if done {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// Three states for await.
func (l *ledger) somethingUnderWay() bool { return l.underWay > 0 }
func (l *ledger) nothingUnderWay() bool   { return l.underWay == 0 }
func (l *ledger) isRestored() bool        { return !l.restored.IsZero() }

// summarise judges what the ledger holds so far.
func (l *ledger) summarise() summary {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := summary{
		transactions: l.transactions, rollbacks: l.rollbacks, foreign: l.foreign, keys: len(l.keys),
		killed: !l.killed.IsZero(), restored: l.isRestored(), outage: l.restored.Sub(l.killed),
	}
	var latencies []time.Duration
	for _, line := range l.entries {
		s.count(line)
		switch {
		case line.outcome != committed || line.arrivals == 0:
		case l.metTheKill(line):
			s.overdue++
		default:
			latencies = append(latencies, line.latency())
		}
	}
	for _, lines := range l.keys {
		s.disordered += disorder(lines)
	}
	slices.Sort(latencies)
	s.p50, s.p99 = quantile(latencies, 0.50), quantile(latencies, 0.99)
	return s
}

func (s *summary) count(line *entry) {
	switch {
	case line.outcome == rolledBack && line.arrivals > 0:
		s.leaked++
		s.rolledBack++
	case line.outcome == rolledBack:
		s.rolledBack++
	case line.outcome == committed && line.arrivals > 0:
		s.committed++
		s.delivered++
		s.repeats += line.arrivals - 1
	case line.outcome == committed:
		s.committed++
		s.lost++
	}
}

// disorder counts the events of one key whose first or last arrival was before
// that of an event committed earlier.
func disorder(lines []*entry) int {
	count, first, last := 0, 0, 0
	for _, line := range lines {
		if line.arrivals == 0 {
			continue
		}
		if line.first < first || line.last < last {
			count++
		}
		first, last = max(first, line.first), max(last, line.last)
	}
	return count
}

// quantile is the nearest rank in sorted durations; 0 of none.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[max(rank, 1)-1]
}
