package kafka

import (
	"sync"
	"time"

	"github.com/IBM/sarama"

	"github.com/walpost/walpost/outbox"
)

const (
	// batchOverhead is what a batch adds to its records, as the broker counts:
	// base offset and length (12 bytes) and the batch header (49).
	batchOverhead = 61

	// recordFormat is the one of message format v2, for sarama's sizes.
	recordFormat = 2

	slotChunk = 64 // slots made at a time
)

// slot carries one message through sarama. It is reused, see the package doc.
type slot struct {
	msg     sarama.ProducerMessage
	key     encoder
	value   encoder
	headers []sarama.RecordHeader

	seq       uint64
	pos       outbox.Position
	id        []byte // lent
	partition *partition
}

// encoder is bytes that sarama can ask for through a pointer, which unlike
// sarama.ByteEncoder fits into an interface without an allocation.
type encoder []byte

func (e *encoder) Encode() ([]byte, error) { return *e, nil }
func (e *encoder) Length() int             { return len(*e) }

// load makes the slot carry m to p.
func (s *slot) load(m *outbox.Message, p *partition, now time.Time) {
	s.seq, s.pos, s.id, s.partition = m.Seq, m.Pos, m.ID, p
	s.headers = s.headers[:0]
	for _, h := range m.Headers {
		s.headers = append(s.headers, sarama.RecordHeader{Key: headerKey(h.Key), Value: h.Value})
	}
	s.msg = sarama.ProducerMessage{
		Topic:     m.Topic,
		Headers:   s.headers,
		Metadata:  s,
		Offset:    noOffset,
		Partition: p.number,
		Timestamp: clamp(m.Time, now),
	}
	s.key, s.value = m.Key, m.Value
	if m.Key != nil {
		s.msg.Key = &s.key
	}
	if m.Value != nil {
		s.msg.Value = &s.value
	}
}

// noOffset marks a message whose offset sarama has not filled in.
const noOffset = -1

// size bounds the batch that holds this message alone from above.
func (s *slot) size() int { return batchOverhead + s.msg.ByteSize(recordFormat) }

// clear drops the references to lent bytes.
func (s *slot) clear() {
	clear(s.headers)
	s.key, s.value, s.id = nil, nil, nil
	s.msg = sarama.ProducerMessage{}
}

// headerKey: a header's key can't be null in Kafka, only empty.
func headerKey(key []byte) []byte {
	if key == nil {
		return []byte{}
	}
	return key
}

// clamp keeps a commit time from lying in the future, where the clocks differ:
// brokers refuse timestamps ahead of theirs
// (message.timestamp.after.max.ms, an hour by default).
func clamp(t, now time.Time) time.Time {
	if t.IsZero() || t.After(now) {
		return now
	}
	return t
}

// freeList hands used slots from drain back to Send, many under one lock.
type freeList struct {
	mu   sync.Mutex
	free []*slot
}

func (f *freeList) put(slots []*slot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.free = append(f.free, slots...)
}

// swap takes all free slots and leaves the memory of an empty list.
func (f *freeList) swap(empty []*slot) []*slot {
	f.mu.Lock()
	defer f.mu.Unlock()
	taken := f.free
	f.free = empty[:0]
	return taken
}

// spares is Send's own end of the free list.
type spares struct {
	list  *freeList
	slots []*slot
}

func (s *spares) take() *slot {
	if len(s.slots) == 0 {
		s.slots = s.list.swap(s.slots)
	}
	if len(s.slots) == 0 {
		s.grow()
	}
	last := len(s.slots) - 1
	taken := s.slots[last]
	s.slots = s.slots[:last]
	return taken
}

// putBack returns a slot that sarama has not seen.
func (s *spares) putBack(unused *slot) {
	unused.clear()
	s.slots = append(s.slots, unused)
}

func (s *spares) grow() {
	chunk := make([]slot, slotChunk)
	for i := range chunk {
		s.slots = append(s.slots, &chunk[i])
	}
}
