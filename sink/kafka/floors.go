package kafka

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
)

// floorsMark is the name of the sink's own mark.
const floorsMark = "sink/kafka/floors"

// floorsVersion is that of the mark's format.
const floorsVersion = 1

// maxPoints bounds what is remembered of a partition between two commits.
const maxPoints = 64

// floorsRecord is the mark's value.
type floorsRecord struct {
	Version int                    `json:"v"`
	Routing string                 `json:"routing,omitempty"` // see Config.Routing
	Spread  bool                   `json:"spread,omitempty"`  // over all topics, because the routing was another one
	Topics  map[string]topicRecord `json:"topics"`
}

type topicRecord struct {
	ID   string  `json:"id,omitempty"` // topic id; empty where the broker told none
	Next []int64 `json:"next"`         // floor by partition

	Spread bool `json:"spread,omitempty"` // over its partitions, because some were added
}

// spread says that records from the floors on may be elsewhere than their events
// belong now: in another partition of the topic, or in another topic. It lasts
// until everything published before is committed.
type spread struct {
	on       bool
	united   bool   // it ends when message unitedAt is committed
	unitedAt uint64 // a sequence number
}

// floors holds the floor of every partition that the pipeline has written to; see
// the package doc. Safe for concurrent use: Send prepares topics, drain adds
// points, Commit advances.
type floors struct {
	scattered bool // all topics' records make one tail; constant once route was called

	mu      sync.Mutex
	topics  map[string]*topicFloors
	routing string
	spread  spread // over topics
	moved   bool   // since the mark was last encoded
}

type topicFloors struct {
	id         string
	partitions []*partitionFloor
	spread     spread // over partitions
}

// partitionFloor is one partition's floor and the points above it.
type partitionFloor struct {
	next      int64
	points    []point // ascending in both fields
	inherited bool    // from a predecessor, who may have written above it; constant
}

// point says: next is the offset after the record of message seq.
type point struct {
	seq  uint64
	next int64
}

// decodeFloors makes floors from a predecessor's mark; nil is no mark.
func decodeFloors(mark []byte) (*floors, error) {
	f := &floors{topics: map[string]*topicFloors{}}
	if mark == nil {
		return f, nil
	}
	var record floorsRecord
	if err := json.Unmarshal(mark, &record); err != nil {
		return nil, &failure{op: "decode mark " + floorsMark, err: err, final: true}
	}
	if record.Version != floorsVersion {
		return nil, &failure{
			op:        "decode mark " + floorsMark,
			err:       fmt.Errorf("its version is %d, this walpost knows %d", record.Version, floorsVersion),
			condition: condCheckpointTooNew,
			final:     true,
		}
	}
	f.routing, f.spread.on = record.Routing, record.Spread
	for name, t := range record.Topics {
		tf := &topicFloors{id: t.ID, spread: spread{on: t.Spread}}
		for _, next := range t.Next {
			tf.partitions = append(tf.partitions, &partitionFloor{next: next, inherited: true})
		}
		f.topics[name] = tf
	}
	return f, nil
}

// route says what decides now where events go. It is called once, before the
// first message. Where either routing is unknown nothing is concluded.
func (f *floors) route(routing string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if routing != "" && routing != f.routing {
		f.spread.on = f.spread.on || f.routing != ""
		f.routing, f.moved = routing, true
	}
	f.scattered = f.spread.on
}

// prepare makes sure that every partition of a topic has a floor. It returns the
// floors; new ones are not in the mark yet. A new one is the partition's end
// offset, which end finds out: nothing below it is from this pipeline, or the
// mark would have a floor for the partition.
//
// A topic whose id is not the mark's is refused.
func (f *floors) prepare(name, id string, partitions int, end func(partition int32) (int64, error)) ([]*partitionFloor, error) {
	f.mu.Lock()
	t := f.topics[name]
	f.mu.Unlock()
	if t == nil {
		t = &topicFloors{}
	}
	if isAnother(t.id, id) {
		return nil, recreated(name, t.id, id)
	}
	known := t.partitions
	for p := len(known); p < partitions; p++ {
		next, err := end(int32(p)) // #nosec G115 -- a partition number
		if err != nil {
			return nil, err
		}
		known = append(known, &partitionFloor{next: next})
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	prepared := &topicFloors{id: cmp.Or(id, t.id), partitions: known}
	if len(known) > len(t.partitions) {
		f.moved = true
		prepared.spread.on = len(t.partitions) > 0
	}
	prepared.spread.on = !f.scattered && (prepared.spread.on || t.spread.on)
	f.topics[name] = prepared
	return known, nil
}

// spreadOf returns the spread of a topic over its partitions, nil if there is
// none.
func (f *floors) spreadOf(name string) *spread {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := &f.topics[name].spread; s.on {
		return s
	}
	return nil
}

// unite says that message seq is the first after all events that were published
// by predecessors: once it is committed, they are not spread any more. Only the
// first call counts.
func (f *floors) unite(s *spread, seq uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !s.united {
		s.united, s.unitedAt = true, seq
	}
}

func (s *spread) advance(through uint64) (ended bool) {
	ended = s.on && s.united && s.unitedAt < through
	s.on = s.on && !ended
	return ended
}

// of reads a floor.
func (f *floors) of(p *partitionFloor) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return p.next
}

// isAnother compares topic ids. Without either nothing is concluded.
func isAnother(was, is string) bool { return was != "" && is != "" && was != is }

// add records that the offset after message seq's record is next. When there are
// maxPoints, every other one is dropped; the floor then rises in larger steps.
func (f *floors) add(p *partitionFloor, seq uint64, next int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if next <= p.newest() {
		return // the broker may acknowledge a duplicate batch without its true offset
	}
	if len(p.points) == maxPoints {
		p.points = thin(p.points)
	}
	p.points = append(p.points, point{seq, next})
}

func (p *partitionFloor) newest() int64 {
	if n := len(p.points); n > 0 {
		return p.points[n-1].next
	}
	return p.next
}

// thin keeps every other point, the newest among them.
func thin(points []point) []point {
	kept := points[:0]
	for i := 1 - len(points)%2; i < len(points); i += 2 {
		kept = append(kept, points[i])
	}
	return kept
}

// advance raises every floor as far as messages below through allow and encodes
// the mark; nil if nothing has moved since the last time.
func (f *floors) advance(through uint64) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.moved = f.spread.advance(through) || f.moved
	for _, t := range f.topics {
		f.moved = t.spread.advance(through) || f.moved
		for _, p := range t.partitions {
			f.moved = p.advance(through) || f.moved
		}
	}
	if !f.moved {
		return nil, nil
	}
	f.moved = false
	return f.encode()
}

func (p *partitionFloor) advance(through uint64) bool {
	passed := 0
	for passed < len(p.points) && p.points[passed].seq < through {
		passed++
	}
	if passed == 0 {
		return false
	}
	p.next = p.points[passed-1].next
	p.points = append(p.points[:0], p.points[passed:]...)
	return true
}

func (f *floors) encode() ([]byte, error) {
	record := floorsRecord{Version: floorsVersion, Routing: f.routing, Spread: f.spread.on, Topics: make(map[string]topicRecord, len(f.topics))}
	for name, t := range f.topics {
		record.Topics[name] = t.record(t.partitions)
	}
	return json.Marshal(record)
}

// inheritance is what predecessors have written to.
func (f *floors) inheritance() map[string]topicRecord {
	f.mu.Lock()
	defer f.mu.Unlock()
	topics := map[string]topicRecord{}
	for name, t := range f.topics {
		added := slices.IndexFunc(t.partitions, func(p *partitionFloor) bool { return !p.inherited })
		if added < 0 {
			added = len(t.partitions)
		}
		topics[name] = t.record(t.partitions[:added])
	}
	return topics
}

func (t *topicFloors) record(partitions []*partitionFloor) topicRecord {
	next := make([]int64, len(partitions))
	for i, p := range partitions {
		next[i] = p.next
	}
	return topicRecord{ID: t.id, Next: next, Spread: t.spread.on}
}
