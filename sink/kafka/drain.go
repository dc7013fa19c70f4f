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

// drain reads sarama's results for the messages, and which messages Send has
// skipped, in one goroutine, until sarama has closed both channels. It gathers all results that are available without
// waiting and settles them with one call. All its slices are reused.
type drain struct {
	s        *session
	seqs     []uint64
	carriers []*carrier
	touched  []*partition
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
		case seqs := <-d.s.duplicates:
			d.s.report(seqs, sink.Duplicate)
		case err, open := <-errs:
			if !open {
				errs = nil
				continue
			}
			d.refuse(err)
		}
	}
}

// gather takes the results that are available. sarama sends them one by one on
// an unbuffered channel, so the next result is often not there yet although
// sarama is about to send it. Calling Gosched once before giving up raised the
// average batch from 2 to 60 messages, and costs no wait when there are no more.
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

// take notes a result, unless it is a mark's. A message that was sent while the partition had a tail adds
// no point to the floor, and a duplicate neither: the records of later events may
// be in the tail, below this one's.
func (d *drain) take(msg *sarama.ProducerMessage) {
	c, isEvent := msg.Metadata.(*carrier)
	if !isEvent {
		return // a mark of a transaction; its commit waits for it
	}
	d.seqs = append(d.seqs, c.seq)
	d.carriers = append(d.carriers, c)
	p := c.partition
	if msg.Offset < 0 || c.midTail {
		return
	}
	if !p.acked {
		p.acked = true
		d.touched = append(d.touched, p)
	}
	p.seq, p.nextOff = c.seq, msg.Offset+1
}

// settle updates the floors, reports the gathered messages, then returns their
// carriers. The floors come first, because Settle may cause a Commit, which has
// to see them.
func (d *drain) settle() {
	s := d.s
	for _, p := range d.touched {
		s.floors.add(p.floor, p.seq, p.nextOff)
		p.acked = false
	}
	slices.Sort(d.seqs) // acknowledgements are ordered only within a partition
	if s.report(d.seqs, sink.Delivered) {
		for _, c := range d.carriers {
			c.clear()
		}
		s.carriers.put(d.carriers)
	}
	d.seqs, d.carriers, d.touched = d.seqs[:0], d.carriers[:0], d.touched[:0]
}

// report settles unless the session is over.
func (s *session) report(seqs []uint64, o sink.Outcome) bool {
	if len(seqs) == 0 {
		return false
	}
	s.settling.Lock()
	defer s.settling.Unlock()
	if s.over.Load() {
		return false
	}
	s.settle(seqs, o)
	s.settled.Add(uint64(len(seqs)))
	select {
	case s.moved <- struct{}{}:
	default:
	}
	return true
}

// refuse ends the session because sarama has given up a message. After an error
// in a transaction sarama refuses whatever it is given, at once and with this
// error, while it may still be repeating the batch that had the error, whose
// refusal then tells more.
func (d *drain) refuse(e *sarama.ProducerError) {
	if !errors.Is(e.Err, sarama.ErrTransactionNotReady) {
		_ = d.s.fail(d.s.ledger.explain(d.s.refusal(e)))
	}
}

// refusal is the session error for a message that sarama has given up.
func (s *session) refusal(e *sarama.ProducerError) error {
	c, isEvent := e.Msg.Metadata.(*carrier)
	if !isEvent {
		return s.marks.refused(s.marks.writing(), e.Err)
	}
	op := fmt.Sprintf("publish to %s/%d", c.partition.topic, c.partition.number)
	if !refusesRecord(e.Err) {
		return classify(op, e.Err)
	}
	why := fmt.Errorf("the broker refused the batch that begins with it: %w", e.Err)
	if errors.Is(e.Err, sarama.ErrMessageSizeTooLarge) {
		why = fmt.Errorf("the broker refused the batch that begins with it as larger than max.message.bytes of topic %s: %w", c.partition.topic, e.Err)
	}
	return fmt.Errorf("%s: %w", op, &sink.Rejected{Pos: c.pos, ID: string(c.id), Err: why})
}
