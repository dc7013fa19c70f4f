package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"
	"github.com/cenkalti/backoff/v4"

	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/sink"
)

// topic is what a session knows of a topic it writes to. The partition count is
// read once, at first use: a count that changed under way would send later
// events of a key elsewhere, overtaking earlier ones.
type topic struct {
	partitions []*partition
}

type partition struct {
	topic  string
	number int32
	sent   int64 // by Send alone
	floor  *partitionFloor

	// drain's alone: the newest acknowledged record of the batch at hand.
	acked   bool
	seq     uint64
	nextOff int64
}

// Send implements [sink.Session]. The end of ctx while it waits for room harms
// nothing: msgs[:n] are taken, the rest is untouched, and the session lives on,
// so that Close can still flush. Where ctx ends while a topic is prepared for
// its first message, the session ends.
func (s *session) Send(ctx context.Context, msgs []outbox.Message) (int, error) {
	s.sending.Lock()
	defer s.sending.Unlock()
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	n, unready := s.ready(ctx, msgs)
	now := time.Now()
	for i := range msgs[:n] {
		if s.over.Load() {
			return i, s.ended()
		}
		if err := s.send(ctx, &msgs[i], now); err != nil {
			return i, err
		}
	}
	return n, unready
}

// ready prepares the messages' topics and returns how many messages may be
// sent. Where a topic can't be prepared nothing of that transaction may: as
// long as the topic is missing its events come again with every attempt, and
// would be published by each.
func (s *session) ready(ctx context.Context, msgs []outbox.Message) (int, error) {
	first := 0 // of the transaction
	for i := range msgs {
		if msgs[i].Pos.Commit != msgs[first].Pos.Commit {
			first = i
		}
		if i > 0 && msgs[i].Topic == msgs[i-1].Topic {
			continue
		}
		_, err := s.topicOf(ctx, &msgs[i])
		var rejected *sink.Rejected
		if err != nil && !errors.As(err, &rejected) { // what is rejected is told in its turn
			return first, err
		}
	}
	return len(msgs), nil
}

func (s *session) send(ctx context.Context, m *outbox.Message, now time.Time) error {
	t, err := s.topicOf(ctx, m)
	if err != nil {
		return err
	}
	p, err := t.pick(m)
	if err != nil {
		return err
	}
	if p.sent >= s.cfg.renewAfter {
		return s.renew(ctx, p)
	}
	slot := s.spares.take()
	slot.load(m, p, now)
	if size := slot.size(); size > s.cfg.MaxMessageBytes {
		s.spares.putBack(slot)
		return reject(m, fmt.Errorf("it takes up to %d bytes as a Kafka batch, the limit is %d", size, s.cfg.MaxMessageBytes))
	}
	return s.hand(ctx, slot)
}

// hand gives a slot to sarama, which blocks while its queues are full.
func (s *session) hand(ctx context.Context, slot *slot) error {
	s.sent.Add(1) // before drain can count it as settled
	slot.partition.sent++
	select {
	case s.producer.Input() <- &slot.msg:
		return nil
	default:
	}
	select {
	case s.producer.Input() <- &slot.msg:
		return nil
	case <-s.done:
	case <-s.closing:
	case <-ctx.Done():
	}
	s.sent.Add(^uint64(0))
	slot.partition.sent--
	s.spares.putBack(slot)
	if ctx.Err() != nil {
		return ctx.Err()
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
		return nil, err // about this topic; what was sent to others is unharmed
	default:
		return nil, s.fail(err)
	}
}

// prepare finds or creates a topic and makes sure that the floors of all its
// partitions are in the record before the first write: one offset lookup a
// partition, then one transaction.
func (s *session) prepare(ctx context.Context, name string) (*topic, error) {
	defer s.failAtEndOf(ctx, "prepare topic "+name)()
	meta, err := s.sink.ensureTopic(ctx, s.dialer, name, s.cfg.Topics.detail())
	if err != nil {
		return nil, err
	}
	id := topicID(meta)
	if s.floors.recreated(name, id) {
		s.cfg.Logger.Warn("the topic was recreated since this pipeline last wrote to it; what it held is gone", "topic", name)
	}
	floors, isNew, err := s.floors.prepare(name, id, len(meta.Partitions), func(p int32) (int64, error) {
		return s.endOffset(ctx, name, p)
	})
	if err != nil {
		return nil, err
	}
	if isNew {
		err := s.writeMarks(ctx, nil, func() ([]byte, error) { return s.floors.advance(0) })
		if err != nil {
			return nil, err
		}
	}
	t := &topic{partitions: make([]*partition, len(floors))}
	for i, floor := range floors {
		t.partitions[i] = &partition{topic: name, number: int32(i), floor: floor} // #nosec G115 -- a partition number
	}
	return t, nil
}

// endOffset asks for a partition's end. Right after a topic's creation, or
// while a leader moves, brokers disagree for a moment.
func (s *session) endOffset(ctx context.Context, topic string, partition int32) (int64, error) {
	var end int64
	attempt := func() error {
		var err error
		end, err = s.marks.client.GetOffset(topic, partition, sarama.OffsetNewest)
		if err != nil && (s.dialer.isCut() || !isAny(err, sarama.ErrNotLeaderForPartition, sarama.ErrUnknownTopicOrPartition, sarama.ErrLeaderNotAvailable)) {
			return backoff.Permanent(err)
		}
		return err
	}
	if err := backoff.Retry(attempt, s.sink.polling(ctx)); err != nil {
		return 0, explain(fmt.Sprintf("find the end of %s/%d", topic, partition), err)
	}
	return end, nil
}

// topicID is empty where the broker tells none.
func topicID(meta *sarama.TopicMetadata) string {
	if meta.Uuid == (sarama.Uuid{}) {
		return ""
	}
	return meta.Uuid.String()
}

// detail is nil where topics are not to be created.
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

// errRenew ends a session in good order.
var errRenew = errors.New("the sequence numbers of a partition are used up to a quarter; a new session continues")

// renew lets everything sent be settled, then ends the session.
func (s *session) renew(ctx context.Context, p *partition) error {
	if err := s.flush(ctx); err != nil {
		return err
	}
	return s.fail(&failure{op: fmt.Sprintf("send to %s/%d", p.topic, p.number), err: errRenew})
}
