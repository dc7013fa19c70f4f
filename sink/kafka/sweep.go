package kafka

import (
	"context"
	"errors"
	"fmt"

	"github.com/IBM/sarama"

	"github.com/walpost/walpost/outbox"
)

// This file reads what predecessors have published and may not have committed:
// the records from their floors on.

// Newest implements [sink.Session].
func (s *session) Newest(ctx context.Context, source string) (outbox.Position, error) {
	s.sending.Lock()
	defer s.sending.Unlock()
	var newest outbox.Position
	err := s.interruptibly(ctx, "find the newest event that Kafka holds", func() error {
		return s.sweep(func(_ place, _ int64, r *sarama.Record) {
			if pos, _, ok := eventOf(r, []byte(source)); ok && pos.Compare(newest) > 0 {
				newest = pos
			}
		})
	})
	if err != nil {
		return outbox.Position{}, err
	}
	return newest, nil
}

// place is a partition of a topic.
type place struct {
	topic     string
	partition int32
}

func (p place) String() string { return fmt.Sprintf("%s/%d", p.topic, p.partition) }

// sweep calls each for every committed record from the floors of all
// predecessors on. A topic that is gone is passed over: it does not stop a start
// that has nothing to send there either.
func (s *session) sweep(each func(at place, offset int64, r *sarama.Record)) error {
	for name, t := range s.floors.inheritance() {
		if err := s.stopped(); err != nil {
			return err
		}
		if err := s.sweepTopic(name, t, each); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) sweepTopic(name string, t topicRecord, each func(at place, offset int64, r *sarama.Record)) error {
	meta, err := s.sink.awaitTopic(s.dialer, name, missingFor)
	if isAny(err, sarama.ErrUnknownTopicOrPartition) {
		s.cfg.Logger.Warn("a topic that this pipeline has written to does not exist any more: which events were published to it can't be looked up", "topic", name)
		return nil
	}
	if err != nil {
		return err
	}
	if id := topicID(meta); isAnother(t.ID, id) {
		return recreated(name, t.ID, id)
	}
	for number, floor := range t.Next {
		at := place{name, int32(number)} // #nosec G115 -- a partition number
		err := s.readPublished(at, floor, func(offset int64, r *sarama.Record) { each(at, offset, r) })
		if err != nil {
			return err
		}
	}
	return nil
}

// readPublished calls each for every committed record between a predecessor's
// floor and the end of a partition.
func (s *session) readPublished(at place, floor int64, each func(offset int64, r *sarama.Record)) error {
	end, err := s.offset(at.topic, at.partition, sarama.OffsetNewest)
	if err != nil {
		return err
	}
	if floor > end {
		return truncated(at, floor, end)
	}
	start, err := s.offset(at.topic, at.partition, sarama.OffsetOldest)
	if err != nil {
		return err
	}
	reader := committedReader{client: s.marks.client, topic: at.topic, partition: at.partition, patience: s.cfg.StallTimeout, stop: s.stopped}
	return unreadable(at, reader.read(max(floor, start), end, each))
}

// stopped is an error once the session is over or about to close.
func (s *session) stopped() error {
	select {
	case <-s.closing:
		return errClosed
	case <-s.done:
		return s.ended()
	default:
		return nil
	}
}

// interruptibly reads what predecessors have published. The end of ctx, and any
// error but that of Close, ends the session.
func (s *session) interruptibly(ctx context.Context, op string, read func() error) error {
	if ctx.Err() != nil {
		return s.fail(context.Cause(ctx))
	}
	err := s.stopped()
	if err == nil {
		stop := s.failAtEndOf(ctx, op)
		err = read()
		stop()
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errClosed):
		return s.ended()
	default:
		return s.fail(err)
	}
}

// lostRecords is the failure to go on after acknowledged events were lost: only a
// person can tell whether their consumers had read them.
func lostRecords(op, where string, err error) error {
	return &failure{
		op:        op,
		err:       err,
		condition: condLostRecords,
		remedy: "find out which events " + where + " and publish again what consumers miss; " +
			"then `walpost init --adopt-slot` accepts the topic as it is",
		final: true,
	}
}

func recreated(name, was, is string) error {
	return lostRecords("prepare topic "+name, "were in the deleted topic",
		fmt.Errorf("the topic was deleted and created again: this pipeline has written to topic id %s, the id is now %s", was, is))
}

// truncated: by an unclean election or a restored disk.
func truncated(at place, floor, end int64) error {
	return lostRecords("read what "+at.String()+" holds", "the partition has lost",
		fmt.Errorf("the partition ends at offset %d, but records up to offset %d were acknowledged to this pipeline or its end was there before", end, floor))
}

// unreadable gives its meaning to an error of reading what a partition holds.
func unreadable(at place, err error) error {
	op := "read what " + at.String() + " holds"
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errClosed):
		return err
	case errors.Is(err, errOpenTransaction):
		return &failure{
			op: op, err: err, condition: condStalled,
			remedy: "another producer holds a transaction open in that partition, which hides what comes after it; end that producer, or wait until its transaction times out",
		}
	case isAny(err, sarama.ErrTopicAuthorizationFailed):
		return &failure{
			op: op, err: err, condition: condAuthFailed,
			remedy: "permit walpost's principal to READ the topic: after a restart it looks up what is published already",
		}
	}
	return classify(op, err)
}
