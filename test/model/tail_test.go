package model

// floors are what sink/kafka says in its package doc.
type floors struct {
	known     bool
	inherited bool
	next      [partitions]int
	points    [partitions][]point
}

// point says: next is the offset after the record of message seq.
type point struct {
	seq  uint64
	next int
}

func (f *floors) inherit(next [partitions]int) {
	f.known, f.inherited, f.next = true, true, next
}

func (f *floors) add(p int, seq uint64, next int) {
	f.points[p] = append(f.points[p], point{seq, next})
}

func (f *floors) advance(through uint64) {
	for p := range f.points {
		for len(f.points[p]) > 0 && f.points[p][0].seq < through {
			f.next[p] = f.points[p][0].next
			f.points[p] = f.points[p][1:]
		}
	}
}

// tail is what a partition held when a session first wrote to it.
type tail struct {
	passed bool           // nothing is in it any more
	events map[*event]int // last offset
	newest int            // number of event
	sent   map[string]bool
	last   map[string]int

	// What somebody who knows the whole log would decide.
	whole     map[*event]int
	wholeSent map[string]bool
	wholeLast map[string]int
}

func (s *session) readTail(p int, first *event) *tail {
	k := s.kafka
	t := &tail{
		newest: -1, events: map[*event]int{}, sent: map[string]bool{}, last: map[string]int{},
		whole: map[*event]int{}, wholeSent: map[string]bool{}, wholeLast: map[string]int{},
	}
	k.readBy[p] = max(k.readBy[p], s.epoch)
	from := s.floors.next[p]
	if !s.floors.inherited {
		from = len(k.logs[p])
	}
	for i, r := range k.logs[p] {
		if r.event.number >= first.number {
			t.whole[r.event] = i
		} else {
			t.wholeLast[r.event.key] = i
		}
		if i >= from && r.event.number >= first.number {
			t.events[r.event] = i
			t.newest = max(t.newest, r.event.number)
		} else if i >= from && !s.inst.world.scenario.breaks.forgetEarlier {
			t.last[r.event.key] = i
		}
	}
	return t
}

// skip decides whether an event is published already. The decision is judged by
// somebody who knows the whole log: nothing is skipped that is not in it, and
// nothing is sent again but to close a hole.
func (s *session) skip(e *event) bool {
	w := s.inst.world
	t := s.tails[e.partition]
	if t == nil {
		t = s.readTail(e.partition, e)
		s.tails[e.partition] = t
	}
	skip := t.skip(e, w.scenario.breaks)
	held := decide(t.whole, t.wholeSent, t.wholeLast, e)
	if held && !skip && !s.atomic {
		w.breach("%s sends %s again, which is acknowledged and in order", s.inst.name, e.id)
	}
	return skip
}

func (t *tail) skip(e *event, b breaks) bool {
	if b.newestOnly {
		return e.number <= t.newest
	}
	if t.passed = t.passed || e.number > t.newest; t.passed {
		return false
	}
	if b.partialSkip {
		_, held := t.events[e]
		return held
	}
	return decide(t.events, t.sent, t.last, e)
}

// decide is sink/kafka's: from the first event of a key on that is missing, or
// whose last record comes before that of an earlier event, all are sent again.
func decide(events map[*event]int, sent map[string]bool, last map[string]int, e *event) bool {
	if sent[e.key] {
		return false
	}
	at, held := events[e]
	if before, ok := last[e.key]; !held || ok && before > at {
		sent[e.key] = true
		return false
	}
	last[e.key] = at
	return true
}
