package kafka

import (
	"errors"
	"fmt"
	"runtime"
	"slices"

	"github.com/IBM/sarama"

	"github.com/walpost/walpost/sink"
)

// drainBatch bounds what is settled in one call.
const drainBatch = 1024

// drain reads what becomes of the messages, in one goroutine, until sarama has
// closed both channels. It gathers what is there without waiting and settles it
// in one go. All its slices are reused.
type drain struct {
	s       *session
	seqs    []uint64
	slots   []*slot
	touched []*partition
}

func newDrain(s *session) *drain { return &drain{s: s} }

func (d *drain) run() {
	successes, errs := d.s.producer.Successes(), d.s.producer.Errors()
	for successes != nil || errs != nil {
		select {
		case msg, open := <-successes:
			if !open {
				successes = nil
				continue
			}
			d.gather(msg, successes)
			d.settle()
		case err, open := <-errs:
			if !open {
				errs = nil
				continue
			}
			_ = d.s.fail(refusal(err))
		}
	}
}

// gather takes what is there. sarama hands results over one by one, on a channel
// without a buffer, so that its goroutine has mostly not come round to the next
// one yet: yielding once before giving up makes 60 of what would be 2 messages
// a batch, and waits for nothing when there are no more.
func (d *drain) gather(first *sarama.ProducerMessage, more <-chan *sarama.ProducerMessage) {
	d.take(first)
	for yielded := false; len(d.seqs) < drainBatch; {
		select {
		case msg, open := <-more:
			if !open {
				return
			}
			d.take(msg)
			yielded = false
		default:
			if yielded {
				return
			}
			yielded = true
			runtime.Gosched()
		}
	}
}

func (d *drain) take(msg *sarama.ProducerMessage) {
	slot := msg.Metadata.(*slot) // every message is a slot's
	d.seqs = append(d.seqs, slot.seq)
	d.slots = append(d.slots, slot)
	p := slot.partition
	if msg.Offset < 0 {
		return
	}
	if !p.acked {
		p.acked = true
		d.touched = append(d.touched, p)
	}
	p.seq, p.nextOff = slot.seq, msg.Offset+1
}

// settle reports the gathered messages and gives their slots back, in this
// order: floors before Settle, because a Commit that Settle brings about must
// find them.
func (d *drain) settle() {
	s := d.s
	for _, p := range d.touched {
		s.floors.add(p.floor, p.seq, p.nextOff)
		p.acked = false
	}
	slices.Sort(d.seqs) // the order is one per partition, not overall
	if s.report(d.seqs) {
		for _, slot := range d.slots {
			slot.clear()
		}
		s.slots.put(d.slots)
	}
	d.seqs, d.slots, d.touched = d.seqs[:0], d.slots[:0], d.touched[:0]
}

// report settles unless the session is over.
func (s *session) report(seqs []uint64) bool {
	s.settling.Lock()
	defer s.settling.Unlock()
	if s.over.Load() {
		return false
	}
	s.settle(seqs, sink.Delivered)
	s.settled.Add(uint64(len(seqs)))
	select {
	case s.moved <- struct{}{}:
	default:
	}
	return true
}

// refusal says what it means that sarama has given a message up.
func refusal(e *sarama.ProducerError) error {
	slot := e.Msg.Metadata.(*slot) // every message is a slot's
	op := fmt.Sprintf("publish to %s/%d", slot.partition.topic, slot.partition.number)
	if !refusesRecord(e.Err) {
		return explain(op, e.Err)
	}
	why := fmt.Errorf("the broker refused the batch that begins with it: %w", e.Err)
	if errors.Is(e.Err, sarama.ErrMessageSizeTooLarge) {
		why = fmt.Errorf("the broker refused the batch that begins with it as larger than max.message.bytes of topic %s: %w", slot.partition.topic, e.Err)
	}
	return fmt.Errorf("%s: %w", op, &sink.Rejected{Pos: slot.pos, ID: string(slot.id), Err: why})
}
