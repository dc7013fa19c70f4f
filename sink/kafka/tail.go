package kafka

import (
	"bytes"
	"context"
	"fmt"
	"hash/maphash"

	"github.com/IBM/sarama"

	"github.com/walpost/walpost/outbox"
)

// tail is what a partition held of one source, from its floor on, when the
// session first wrote to it: predecessors' records of events that may come
// again. See "Tails" in the package doc. It belongs to Send.
//
// It is a set. That an event is in Kafka does not say that the ones before it
// are: a predecessor may have left a hole.
type tail struct {
	source []byte          // events of any other one are not in it
	from   outbox.Position // earlier events don't come any more
	spread *spread         // why partitions share the tail; nil: it is of one alone

	// reconfigured: the events may have been published with other ids, taken from
	// another column.
	reconfigured bool

	events map[outbox.Position]*found
	newest outbox.Position // of the events

	// Keys are hashed. If two share a hash, one is sent again because of the
	// other; neither is skipped because of the other.
	seed maphash.Seed
	sent map[uint64]struct{} // keys of which an event was missing
	last map[lane]int64      // offset of the last event that was skipped or does not come any more
}

// found is the last record of an event in one place.
type found struct {
	id     string
	at     place
	offset int64
	also   *found // in another place
}

// lane is where the records of one key have an order.
type lane struct {
	key uint64
	at  place
}

// newTail is an empty tail for a session whose next message is m.
func newTail(m *outbox.Message, spread *spread) *tail {
	return &tail{
		source: bytes.Clone(sourceOf(m)), // m's bytes are lent
		from:   m.Pos,
		spread: spread,
		events: map[outbox.Position]*found{},
		seed:   maphash.MakeSeed(),
		sent:   map[uint64]struct{}{},
		last:   map[lane]int64{},
	}
}

func sourceOf(m *outbox.Message) []byte {
	for i := range m.Headers {
		if string(m.Headers[i].Key) == outbox.HeaderSource {
			return m.Headers[i].Value
		}
	}
	return nil
}

// add takes a record, unless it is of no event of the source. In one place a
// later record of an event replaces an earlier one. Places follow each other.
func (t *tail) add(at place, offset int64, r *sarama.Record) {
	pos, id, ok := eventOf(r, t.source)
	if !ok {
		return
	}
	if pos.Compare(t.from) < 0 {
		t.precede(at, offset, r)
		return
	}
	before := t.events[pos]
	if before != nil && before.at == at {
		before = before.also
	}
	t.events[pos] = &found{id: string(id), at: at, offset: offset, also: before}
	if pos.Compare(t.newest) > 0 {
		t.newest = pos
	}
}

// precede takes a record of an event that does not come any more. One that was
// sent again to close a hole may stand after records of later events of its key.
func (t *tail) precede(at place, offset int64, r *sarama.Record) {
	if r.Key != nil {
		t.last[lane{maphash.Bytes(t.seed, r.Key), at}] = offset
	}
}

// eventOf tells which event of a source a record is of, if of any. Topics are
// shared with other producers, so headers may be missing or mean something else.
func eventOf(r *sarama.Record, source []byte) (pos outbox.Position, id []byte, ok bool) {
	of, id, position := identify(r.Headers)
	ok = of != nil && id != nil && bytes.Equal(of, source) && pos.UnmarshalText(position) == nil
	return pos, id, ok
}

// identify returns the values of the headers that walpost writes before all
// others; nil is a missing one.
func identify(headers []*sarama.RecordHeader) (source, id, position []byte) {
	for _, h := range headers {
		switch {
		case source == nil && string(h.Key) == outbox.HeaderSource:
			source = h.Value
		case id == nil && string(h.Key) == outbox.HeaderID:
			id = h.Value
		case position == nil && string(h.Key) == outbox.HeaderPosition:
			position = h.Value
		}
	}
	return source, id, position
}

// passed reports that neither m nor anything after it is in the tail.
func (t *tail) passed(m *outbox.Message) bool {
	return len(t.events) == 0 || m.Pos.Compare(t.newest) > 0
}

// release gives the memory back: partitions that share the tail may hold on to
// it for long.
func (t *tail) release() { t.events, t.sent, t.last = nil, nil, nil }

// find returns the last record of m: where it belongs, else anywhere; nil if
// there is none.
func (t *tail) find(m *outbox.Message, belongs place) (*found, error) {
	if !bytes.Equal(sourceOf(m), t.source) {
		return nil, nil //nolint:nilnil // not found is no error
	}
	var last *found
	for f := t.events[m.Pos]; f != nil; f = f.also {
		if f.id == string(m.ID) {
			if last == nil || f.at == belongs {
				last = f
			}
		} else if !t.reconfigured {
			return nil, diverged(m, f)
		}
	}
	return last, nil
}

// skip decides whether m is a duplicate, which must not be sent. It is called
// for all messages in order.
//
// The last records of a key's events must stand in the order of their positions.
// So from the first event on that is missing, or whose last record comes before
// one of an earlier event, all events of the key are sent again. Events without
// a key have no order among each other.
func (t *tail) skip(m *outbox.Message, belongs place) (bool, error) {
	f, err := t.find(m, belongs)
	if err != nil {
		return false, err
	}
	if m.Key == nil {
		return f != nil, nil
	}
	key := maphash.Bytes(t.seed, m.Key)
	if _, again := t.sent[key]; again {
		return false, nil
	}
	if f == nil || f.offset < t.last[lane{key, f.at}] {
		t.sent[key] = struct{}{}
		return false, nil
	}
	t.last[lane{key, f.at}] = f.offset
	return true, nil
}

// diverged is the failure to publish an event in whose place Kafka holds
// another: the history that is read is not the one that was published.
func diverged(m *outbox.Message, f *found) error {
	return &failure{
		op:        fmt.Sprintf("publish event %s at %s", m.ID, m.Pos),
		err:       fmt.Errorf("%s holds another event of this source at that position, %s, at offset %d", f.at, f.id, f.offset),
		condition: condDiverged,
		final:     true,
	}
}

// isDuplicate decides whether a predecessor has published m already. The first
// message to a partition reads its tail; the first that is past the tail drops
// it, after which nothing is looked up.
func (s *session) isDuplicate(ctx context.Context, t *topic, p *partition, m *outbox.Message) (bool, error) {
	if p.unread {
		if err := s.readTail(ctx, t, p, m); err != nil {
			return false, err
		}
	}
	if p.tail == nil {
		return false, nil
	}
	if p.tail.passed(m) {
		s.drop(p, m)
		return false, nil
	}
	duplicate, err := p.tail.skip(m, place{p.topic, p.number})
	if err != nil {
		return false, s.fail(err)
	}
	return duplicate, nil
}

func (s *session) drop(p *partition, m *outbox.Message) {
	if p.tail.spread != nil {
		s.floors.unite(p.tail.spread, m.Seq)
	}
	p.tail.release()
	p.tail = nil
}

// readTail reads a partition's tail. Where events may be in other partitions
// than they belong in now, all of the topic's make one tail. Any error ends the
// session, but for that of its Close.
func (s *session) readTail(ctx context.Context, t *topic, p *partition, m *outbox.Message) error {
	read := []*partition{p}
	if t.spread != nil {
		read = t.partitions
	}
	held := newTail(m, t.spread)
	err := s.interruptibly(ctx, fmt.Sprintf("read what %s/%d holds", p.topic, p.number), func() error {
		for _, q := range read {
			if err := s.readPartition(q, held); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, q := range read {
		q.tail, q.unread = held, false
	}
	return nil
}

// readPartition adds what a partition holds above a predecessor's floor.
func (s *session) readPartition(p *partition, held *tail) error {
	if !p.floor.inherited {
		return nil
	}
	at := place{p.topic, p.number}
	return s.readPublished(at, s.floors.of(p.floor), func(offset int64, r *sarama.Record) { held.add(at, offset, r) })
}

// recall reads one tail of all topics before the first message, if events may
// be in other topics than they belong in now.
func (s *session) recall(ctx context.Context, msgs []outbox.Message) error {
	if !s.floors.scattered || s.tail != nil || len(msgs) == 0 {
		return nil
	}
	held := newTail(&msgs[0], &s.floors.spread)
	held.reconfigured = true
	if err := s.interruptibly(ctx, "read what all topics hold", func() error { return s.sweep(held.add) }); err != nil {
		return err
	}
	s.tail = held
	return nil
}

// handOver passes the sequence numbers that Send has skipped to drain, which
// alone settles. Drain never waits for Send, and works until the session is
// over.
func (s *session) handOver() {
	if len(s.skipped) == 0 {
		return
	}
	seqs := s.skipped
	s.skipped = nil
	s.sent.Add(uint64(len(seqs)))
	select {
	case s.duplicates <- seqs:
	case <-s.done:
	}
}
