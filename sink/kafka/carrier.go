package kafka

import (
	"encoding/binary"
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

	// recordOverhead and headerOverhead are what sarama adds at most to keys and
	// values: varint lengths, deltas, attributes.
	recordOverhead = 5*binary.MaxVarintLen32 + binary.MaxVarintLen64 + 1
	headerOverhead = 2 * binary.MaxVarintLen32

	carrierChunk = 64 // carriers made at a time
)

// carrier carries one message through sarama. It is reused, see the package doc.
type carrier struct {
	msg     sarama.ProducerMessage
	key     encoder
	value   encoder
	headers []sarama.RecordHeader

	seq       uint64
	pos       outbox.Position
	id        []byte // lent
	partition *partition
	midTail   bool // sent while the partition has a tail
}

// encoder implements sarama.Encoder on a pointer. Converting a pointer to an
// interface does not allocate; converting a sarama.ByteEncoder does.
type encoder []byte

func (e *encoder) Encode() ([]byte, error) { return *e, nil }
func (e *encoder) Length() int             { return len(*e) }

// load makes the carrier carry m to p.
func (c *carrier) load(m *outbox.Message, p *partition, now time.Time) {
	c.seq, c.pos, c.id, c.partition, c.midTail = m.Seq, m.Pos, m.ID, p, p.tail != nil
	c.headers = c.headers[:0]
	for _, h := range m.Headers {
		c.headers = append(c.headers, sarama.RecordHeader{Key: headerKey(h.Key), Value: h.Value})
	}
	c.msg = sarama.ProducerMessage{
		Topic:     m.Topic,
		Headers:   c.headers,
		Metadata:  c,
		Offset:    noOffset,
		Partition: p.number,
		Timestamp: clamp(m.Time, now),
	}
	c.key, c.value = m.Key, m.Value
	if m.Key != nil {
		c.msg.Key = &c.key
	}
	if m.Value != nil {
		c.msg.Value = &c.value
	}
}

// noOffset marks a message whose offset sarama has not filled in.
const noOffset = -1

// sizeOf is what batchSize is of the message that carries m.
func sizeOf(m *outbox.Message) int {
	size := batchOverhead + recordOverhead + len(m.Key) + len(m.Value)
	for i := range m.Headers {
		size += headerOverhead + len(m.Headers[i].Key) + len(m.Headers[i].Value)
	}
	return size
}

// batchSize is at least the size of a batch with msg alone, in bytes, as the
// broker counts it.
func batchSize(msg *sarama.ProducerMessage) int { return batchOverhead + msg.ByteSize(recordFormat) }

// clear drops the references to lent bytes.
func (c *carrier) clear() {
	clear(c.headers)
	c.key, c.value, c.id = nil, nil, nil
	c.msg = sarama.ProducerMessage{}
}

// headerKey: a header's key can't be null in Kafka, only empty.
func headerKey(key []byte) []byte {
	if key == nil {
		return []byte{}
	}
	return key
}

// clamp replaces a commit time that lies in the future, which happens when
// clocks differ: brokers refuse timestamps too far ahead of their own clock
// (message.timestamp.after.max.ms, one hour by default).
func clamp(t, now time.Time) time.Time {
	if t.IsZero() || t.After(now) {
		return now
	}
	return t
}

// freeList passes used carriers from drain back to Send, many at a time to take
// the lock rarely.
type freeList struct {
	mu   sync.Mutex
	free []*carrier
}

func (f *freeList) put(carriers []*carrier) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.free = append(f.free, carriers...)
}

// swap returns all free carriers and uses the memory of empty for the next ones.
func (f *freeList) swap(empty []*carrier) []*carrier {
	f.mu.Lock()
	defer f.mu.Unlock()
	taken := f.free
	f.free = empty[:0]
	return taken
}

// spares are the carriers that Send has taken from the free list and not used.
type spares struct {
	list     *freeList
	carriers []*carrier
}

func (s *spares) take() *carrier {
	if len(s.carriers) == 0 {
		s.carriers = s.list.swap(s.carriers)
	}
	if len(s.carriers) == 0 {
		s.grow()
	}
	last := len(s.carriers) - 1
	taken := s.carriers[last]
	s.carriers = s.carriers[:last]
	return taken
}

// putBack returns a carrier that was not given to sarama.
func (s *spares) putBack(unused *carrier) {
	unused.clear()
	s.carriers = append(s.carriers, unused)
}

func (s *spares) grow() {
	chunk := make([]carrier, carrierChunk)
	for i := range chunk {
		s.carriers = append(s.carriers, &chunk[i])
	}
}
