package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"

	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/sink"
)

// topic is what a session knows of a topic it writes to. The partition count is
// read once, at first use: if it changed within a session, later events of a key
// could go to another partition and overtake earlier ones.
type topic struct {
	partitions []*partition
	spread     *spread // over the partitions; nil: none
}

type partition struct {
	topic  string
	number int32
	sent   int64 // used only by Send
	floor  *partitionFloor

	// Used only by Send: whether a predecessor's records are still to be read,
	// and what was found, until it is passed.
	unread bool
	tail   *tail

	// Used only by drain: the newest acknowledged record of the current batch.
	acked   bool
	seq     uint64
	nextOff int64
}

// Send implements [sink.Session]. When ctx ends while Send waits for room in
// sarama's queue, the session lives on, so that Close can still flush. When ctx
// ends while a topic is prepared for its first message or a partition's tail is
// read, the session ends: sarama can only be interrupted by cutting its
// connections.
func (s *session) Send(ctx context.Context, msgs []outbox.Message) (int, error) {
	s.sending.Lock()
	defer s.sending.Unlock()
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	defer s.handOver()
	if err := s.recall(ctx, msgs); err != nil {
		return 0, err
	}
	n, refused := s.place(ctx, msgs)
	now := time.Now()
	for i := range msgs[:n] {
		if s.over.Load() {
			return i, s.ended()
		}
		if err := s.send(ctx, &msgs[i], s.places[i], now); err != nil {
			return i, err
		}
	}
	return n, refused
}

// place finds the partition of each message, after preparing the topics, and
// returns how many messages may be sent; with an error, these are the ones before
// the message that is refused, or less: see before.
func (s *session) place(ctx context.Context, msgs []outbox.Message) (int, error) {
	s.places = s.places[:0]
	first := 0 // of the transaction
	var t *topic
	for i := range msgs {
		m := &msgs[i]
		if m.Pos.Commit != msgs[first].Pos.Commit {
			first = i
		}
		if t == nil || m.Topic != msgs[i-1].Topic {
			var err error
			if t, err = s.topicOf(ctx, m); err != nil {
				return s.before(first, i, err), err
			}
		}
		p, err := s.admit(t, m)
		if err != nil {
			return s.before(first, i, err), err
		}
		s.places = append(s.places, p)
	}
	return len(msgs), nil
}

// before is how many messages may be sent if one is refused because of err, in a
// transaction that begins with message first. If the reason may pass, none of that
// transaction's may: it comes again with every attempt, and those of its events
// that go to other topics would have to be found there each time.
func (s *session) before(first, refused int, err error) int {
	var rejected *sink.Rejected
	if errors.As(err, &rejected) {
		return s.ledger.taken(first, refused)
	}
	return first
}

// admit returns the partition of m, or why Kafka would never accept it.
func (s *session) admit(t *topic, m *outbox.Message) (*partition, error) {
	if size := sizeOf(m); size > s.cfg.MaxMessageBytes {
		return nil, reject(m, fmt.Errorf("it takes up to %d bytes as a Kafka batch, the limit is %d", size, s.cfg.MaxMessageBytes))
	}
	return t.pick(m)
}

func (s *session) send(ctx context.Context, m *outbox.Message, p *partition, now time.Time) error {
	if p.unread || p.tail != nil {
		duplicate, err := s.isDuplicate(ctx, s.topics[p.topic], p, m)
		if err != nil {
			return err
		}
		if duplicate {
			s.skipped = append(s.skipped, m.Seq)
			return nil
		}
	}
	if p.sent >= s.cfg.renewAfter {
		return s.renew(ctx, p)
	}
	if err := s.ledger.begin(); err != nil {
		return s.fail(err)
	}
	c := s.spares.take()
	c.load(m, p, now)
	return s.enqueue(ctx, c)
}

// enqueue gives a carrier to sarama, which blocks while its queues are full.
func (s *session) enqueue(ctx context.Context, c *carrier) error {
	s.sent.Add(1) // before drain can count it as settled
	c.partition.sent++
	select {
	case s.producer.Input() <- &c.msg:
		return nil
	default:
	}
	select {
	case s.producer.Input() <- &c.msg:
		return nil
	case <-s.done:
	case <-s.closing:
	case <-ctx.Done():
	}
	s.sent.Add(^uint64(0))
	c.partition.sent--
	s.spares.putBack(c)
	if ctx.Err() != nil && !s.over.Load() {
		return context.Cause(ctx)
	}
	return s.ended()
}

// pick decides the partition.
func (t *topic) pick(m *outbox.Message) (*partition, error) {
	count := int32(len(t.partitions)) // #nosec G115 -- a partition count
	number := m.Partition
	if number == -1 {
		number = partitionOf(m.HashKey, count)
	}
	if number < 0 || number >= count {
		return nil, reject(m, fmt.Errorf("partition %d does not exist: topic %s has %d", number, m.Topic, count))
	}
	return t.partitions[number], nil
}

func reject(m *outbox.Message, why error) error {
	return &sink.Rejected{Pos: m.Pos, ID: string(m.ID), Err: why}
}

// topicOf returns the topic of m, prepared for writing.
func (s *session) topicOf(ctx context.Context, m *outbox.Message) (*topic, error) {
	if t, ok := s.topics[m.Topic]; ok {
		return t, nil
	}
	if err := checkTopicName(m.Topic); err != nil {
		return nil, reject(m, err)
	}
	t, err := s.prepare(ctx, m.Topic)
	switch {
	case err == nil:
		s.topics[m.Topic] = t
		return t, nil
	case isAnswer(err) && !s.over.Load():
		return nil, err // concerns only this topic, not what was sent to others
	default:
		return nil, s.fail(err)
	}
}

// prepare finds or creates a topic and makes sure that the floors of all its
// partitions, and the routing, are in the floors mark before the first write
// counts: one offset lookup per new partition, then what the ledger does.
func (s *session) prepare(ctx context.Context, name string) (*topic, error) {
	defer s.failAtEndOf(ctx, "prepare topic "+name)()
	meta, err := s.sink.ensureTopic(s.dialer, name, s.cfg.Topics.detail())
	if err != nil {
		return nil, err
	}
	if err := s.refuseCompacted(name); err != nil {
		return nil, err
	}
	floors, err := s.floors.prepare(name, topicID(meta), len(meta.Partitions), func(p int32) (int64, error) {
		return s.offset(name, p, sarama.OffsetNewest)
	})
	if err != nil {
		return nil, err
	}
	if err := s.ledger.introduce(ctx); err != nil {
		return nil, err
	}
	t := &topic{partitions: make([]*partition, len(floors)), spread: s.floors.spreadOf(name)}
	for i, floor := range floors {
		t.partitions[i] = &partition{
			topic:  name,
			number: int32(i), // #nosec G115 -- a partition number
			floor:  floor,
			unread: s.tail == nil && (t.spread != nil || floor.inherited),
			tail:   s.tail,
		}
	}
	return t, nil
}

// offset asks for the offset of a partition's end (sarama.OffsetNewest) or start
// (sarama.OffsetOldest).
func (s *session) offset(topic string, partition int32, which int64) (int64, error) {
	var offset int64
	err := s.dialer.patiently(s.cfg.RequestTimeout, fmt.Sprintf("find the start or end of %s/%d", topic, partition), func() (err error) {
		offset, err = s.marks.client.GetOffset(topic, partition, which)
		return err
	})
	return offset, err
}

// topicID is empty if the broker does not send topic ids.
func topicID(meta *sarama.TopicMetadata) string {
	if meta.Uuid == (sarama.Uuid{}) {
		return ""
	}
	return meta.Uuid.String()
}

// detail is nil if missing topics must not be created.
func (d TopicDefaults) detail() *sarama.TopicDetail {
	if !d.Create {
		return nil
	}
	entries := make(map[string]*string, len(d.Config))
	for key, value := range d.Config {
		entries[key] = &value
	}
	return &sarama.TopicDetail{NumPartitions: d.Partitions, ReplicationFactor: d.ReplicationFactor, ConfigEntries: entries}
}

// errRenew is why a session ends that has sent renewAfter messages to one
// partition.
var errRenew = errors.New("a quarter of the partition's sequence numbers is used; a new session continues")

// renew waits until everything sent is settled, then ends the session.
func (s *session) renew(ctx context.Context, p *partition) error {
	s.handOver()
	if err := s.flush(ctx); err != nil {
		return err
	}
	return s.fail(&failure{op: fmt.Sprintf("send to %s/%d", p.topic, p.number), err: errRenew})
}
